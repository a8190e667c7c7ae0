//! What holds of every tree.

use super::*;

impl Tree {
    /// Panics unless the tree is in order. Says which records it has, in the order of their keys.
    pub(in super::super) fn validate(&self, log: &Log) -> Vec<Place> {
        let mut leaves = Vec::new();
        if self.len > 0 {
            self.validate_node(log, self.root, self.height, (&[], None), &mut leaves);
            assert_eq!((leaves.first(), leaves.last()), (Some(&self.first), Some(&self.last)));
            assert!(self.height == 0 || self.inners.get(self.root).heads.len() > 0);
        }
        assert_eq!(self.leaves.len(), leaves.len());
        let mut places = Vec::new();
        for (index, name) in leaves.iter().enumerate() {
            let leaf = self.leaves.get(*name);
            let neighbour = |index: Option<usize>| index.and_then(|index| leaves.get(index)).copied().unwrap_or(NONE);
            let LeafInfo { previous, next, .. } = leaf.info();
            assert_eq!((previous, next), (neighbour(index.checked_sub(1)), neighbour(Some(index + 1))));
            places.extend_from_slice(&leaf.places[..leaf.heads.len()]);
        }
        assert_eq!(places.len(), self.len);
        assert_eq!(self.separators.len(), leaves.len().saturating_sub(1));
        places
    }

    /// Every key of the node is in `[low, high)`.
    fn validate_node(
        &self,
        log: &Log,
        name: u32,
        height: usize,
        (low, high): (&[u8], Option<&[u8]>),
        leaves: &mut Vec<u32>,
    ) {
        let is_inside = |key: &[u8]| low <= key && high.is_none_or(|high| key < high);
        if height == 0 {
            let leaf = self.leaves.get(name);
            assert!(leaf.heads.len() > 0, "a leaf is empty");
            leaf.heads.validate(leaf.keys(log));
            assert!((0..leaf.heads.len()).all(|at| is_inside(leaf.keys(log)(at))));
            leaves.push(name);
            return;
        }
        let inner = self.inners.get(name);
        let separator = |at: usize| -> &[u8] { self.separators.get(inner.separators[at]) };
        let len = inner.heads.len();
        inner.heads.validate(separator);
        assert!((0..len).all(|at| is_inside(separator(at))));
        for at in 0..=len {
            let low = if at == 0 { low } else { separator(at - 1) };
            let high = if at == len { high } else { Some(separator(at)) };
            self.validate_node(log, inner.children[at], height - 1, (low, high), leaves);
        }
    }
}

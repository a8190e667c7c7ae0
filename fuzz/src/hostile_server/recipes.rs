//! How questions are answered.

use std::time::Duration;

use bytes::Bytes;
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::machine::Call;
use tikv_core::pd::{PdEffect, PdInput, path};
use tikv_core::request::{Response, decode_response};
use tikv_core::time::Time;
use tikv_proto::kvrpcpb;
use tikv_sim::cluster::{Cluster, Region, encoded};

use super::answers::{self, PdQuestion};
use super::operations::KEYS;
use super::{tamper, undecodable};
use crate::input::Input;

/// Most recipes in a story.
const MAX_RECIPES: usize = 48;
/// Gaps between question and answer, in milliseconds.
const DELAYS_MS: [u64; 6] = [0, 1, 40, 900, 3_500, 40_000];

/// One way to answer a question.
#[derive(Clone, Debug, Default)]
pub(super) enum Recipe {
    /// As the simulated cluster does.
    #[default]
    Honest,
    /// The same, but later.
    Late(Duration),
    /// The same, after something has changed.
    Disturbed(u8),
    /// Not at all, though perhaps executed.
    Silent { executed: bool },
    /// With a fault.
    Fault(FaultKind, Execution),
    /// With a region error: the field and its content.
    RegionError(u8, Bytes),
    /// With an error about keys: the field and its content.
    KeyError(u8, Bytes),
    /// Honestly, but for some bytes.
    Tampered(Bytes),
    /// With these bytes.
    Raw(Bytes),
    /// With the answer to another question.
    Wrong,
}

/// All recipes of a story, each list begun anew when it is at its end.
#[derive(Debug, Default)]
pub(super) struct Recipes {
    store: Vec<Recipe>,
    pd: Vec<Recipe>,
    timestamps: Vec<Recipe>,
    next: [usize; 3],
}

impl Recipes {
    pub(super) fn read(input: &mut Input<'_>) -> Self {
        let mut recipes = Recipes::default();
        for _ in 0..MAX_RECIPES {
            if input.is_empty() {
                break;
            }
            let whose = input.byte();
            let recipe = Recipe::read(input);
            match whose % 8 {
                0 => recipes.pd.push(recipe),
                1 => recipes.timestamps.push(recipe),
                _ => recipes.store.push(recipe),
            }
        }
        recipes
    }

    pub(super) fn next_for_store(&mut self) -> Recipe {
        take(&self.store, &mut self.next[0])
    }

    /// Timestamps have a list of their own.
    pub(super) fn next_for_pd(&mut self, effect: &PdEffect) -> Recipe {
        match effect {
            PdEffect::Send { .. } | PdEffect::OpenStream { .. } => take(&self.timestamps, &mut self.next[1]),
            _ => take(&self.pd, &mut self.next[2]),
        }
    }
}

fn take(list: &[Recipe], next: &mut usize) -> Recipe {
    let recipe = if list.is_empty() { Recipe::Honest } else { list[*next % list.len()].clone() };
    *next += 1;
    recipe
}

impl Recipe {
    fn read(input: &mut Input<'_>) -> Self {
        match input.below(16) {
            0 | 1 => Recipe::Honest,
            2 => Recipe::Late(Duration::from_millis(input.pick(&DELAYS_MS))),
            3 => Recipe::Disturbed(input.byte()),
            4 => Recipe::Silent { executed: input.byte() & 1 != 0 },
            5 => {
                let status = FaultKind::Status(u32::from(input.below(18)));
                let kinds = [
                    FaultKind::Unreachable,
                    FaultKind::Disconnected,
                    FaultKind::Timeout,
                    FaultKind::Protocol,
                    FaultKind::Overloaded,
                    status,
                ];
                Recipe::Fault(input.pick(&kinds), input.pick(&[Execution::NotSent, Execution::MaybeExecuted]))
            }
            6..=8 => Recipe::RegionError(input.byte(), input.bytes(24)),
            9..=11 => Recipe::KeyError(input.byte(), input.bytes(24)),
            12 | 13 => Recipe::Tampered(input.bytes(12)),
            14 => Recipe::Raw(input.bytes(64)),
            _ => Recipe::Wrong,
        }
    }

    /// The answer to a call of a store, and how long it takes; `None` for none.
    pub(super) fn answer_call(
        self,
        cluster: &mut Cluster,
        now: Time,
        call: &Call,
    ) -> Option<(Duration, Result<Response, Fault>)> {
        let kind = call.request.kind();
        let decode = |bytes: Bytes| decode_response(kind, bytes).map_err(|_| undecodable(&call.address));
        let reply = match self {
            Recipe::Honest => answers::of_store(cluster, now, call)?,
            Recipe::Late(delay) => return Some((delay, answers::of_store(cluster, now, call)?)),
            Recipe::Disturbed(how) => {
                disturb(cluster, how);
                answers::of_store(cluster, now, call)?
            }
            Recipe::Silent { executed } => {
                if executed {
                    answers::of_store(cluster, now, call);
                }
                return None;
            }
            Recipe::Fault(kind, execution) => Err(Fault::new(kind, execution, call.address.clone())),
            Recipe::RegionError(field, content) => {
                let error = answers::region_error(cluster, call, field, &content);
                Response::of_region_error(kind, error).ok_or_else(|| undecodable(&call.address))
            }
            Recipe::KeyError(field, content) => Ok(answers::key_error(call, field, &content)),
            Recipe::Tampered(edits) => match answers::of_store(cluster, now, call)? {
                Ok(response) => decode(tamper(&response.encode_to_bytes(), &edits)),
                fault => fault,
            },
            Recipe::Raw(bytes) => decode(bytes),
            Recipe::Wrong => Ok(kvrpcpb::RawChecksumResponse::default().into()),
        };
        Some((Duration::ZERO, reply))
    }

    /// What PD's side does about an effect, and how long it takes; `None` for nothing.
    pub(super) fn answer_pd(self, cluster: &mut Cluster, now: Time, effect: PdEffect) -> Option<(Duration, PdInput)> {
        let question = PdQuestion::of(effect, self.ends_streams())?;
        let honest = |cluster: &mut Cluster| answers::of_pd(cluster, now, &question);
        let answer = match self {
            Recipe::Honest => honest(cluster),
            Recipe::Late(delay) => return Some((delay, question.reply(honest(cluster)))),
            Recipe::Disturbed(how) => {
                disturb(cluster, how);
                honest(cluster)
            }
            Recipe::Silent { .. } => return None,
            Recipe::Fault(kind, execution) => Err(Fault::new(kind, execution, question.address())),
            Recipe::RegionError(field, content) | Recipe::KeyError(field, content) => {
                Ok(answers::pd_error(&question, field, &content))
            }
            Recipe::Tampered(edits) => honest(cluster).map(|message| tamper(&message, &edits)),
            Recipe::Raw(bytes) => Ok(bytes),
            Recipe::Wrong => Ok(Bytes::new()),
        };
        Some((Duration::ZERO, question.reply(answer)))
    }

    fn ends_streams(&self) -> bool {
        matches!(self, Recipe::Fault(..))
    }
}

/// The honest cluster changes.
fn disturb(cluster: &mut Cluster, how: u8) {
    let key = KEYS[usize::from(how) % KEYS.len()];
    let ids: Vec<u64> = cluster.topology().regions().iter().map(Region::id).collect();
    if how < 128 && ids.len() < 16 {
        // A bound that is there already is refused.
        let _ = cluster.split(&encoded(key.as_bytes()));
    } else if let Some(id) = ids.get(usize::from(how) % ids.len().max(1)) {
        let _ = cluster.transfer_leader(*id, u64::from(how % 3) + 1);
    }
}

/// The path of the stream of timestamps.
pub(super) const TSO: &str = path::TSO;

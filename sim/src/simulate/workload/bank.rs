//! Money moves between accounts, and none is made or lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, Script, Step, Task, Workload, number, numbered_keys, two_indices, value_of, written};

/// What every account has at first.
const DEPOSIT: i64 = 100;
/// One in so many transactions looks at all accounts.
const AUDIT_EVERY: u64 = 16;
/// One in so many of the others is a look at what one account has now.
const LOOK_EVERY: u64 = 16;

#[derive(Debug)]
pub(super) struct Bank {
    accounts: Arc<[Key]>,
}

impl Bank {
    pub(super) fn new(keys: u32) -> Self {
        Bank { accounts: numbered_keys(keys).into() }
    }
}

impl Workload for Bank {
    fn keys(&self) -> &[Key] {
        &self.accounts
    }

    fn initial(&self) -> Vec<(Key, Bytes)> {
        self.accounts.iter().map(|account| (account.clone(), value_of(DEPOSIT))).collect()
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        if rng.below(AUDIT_EVERY) == 0 {
            return Task::Transaction(Box::new(Audit { accounts: Arc::clone(&self.accounts), has_read: false }));
        }
        let (from, to) = two_indices(rng, self.accounts.len());
        if rng.below(LOOK_EVERY) == 0 {
            return Task::ReadNewest(self.accounts[from].clone());
        }
        let amount = 1 + rng.below(DEPOSIT as u64) as i64;
        let (from, to) = (self.accounts[from].clone(), self.accounts[to].clone());
        Task::Transaction(Box::new(Transfer { from, to, amount, has_read: false }))
    }

    fn check(&self, state: &BTreeMap<Key, Bytes>) -> Checked<()> {
        check_total(&self.accounts, state)
    }
}

fn check_total(accounts: &[Key], balances: &BTreeMap<Key, Bytes>) -> Checked<()> {
    let mut total = 0;
    for account in accounts {
        let balance = number(balances.get(account))?;
        if balance < 0 {
            return Err(format!("account {account:?} is overdrawn: {balance}"));
        }
        total += balance;
    }
    let expected = DEPOSIT * accounts.len() as i64;
    if total == expected { Ok(()) } else { Err(format!("there is {total} where {expected} should be")) }
}

#[derive(Debug)]
struct Transfer {
    from: Key,
    to: Key,
    amount: i64,
    has_read: bool,
}

impl Script for Transfer {
    fn step(&mut self, txn: &mut Transaction, balances: Found) -> Checked<Step> {
        if !std::mem::replace(&mut self.has_read, true) {
            return Ok(Step::Read(vec![self.from.clone(), self.to.clone()]));
        }
        let (from, to) = (number(balances.get(&self.from))?, number(balances.get(&self.to))?);
        let amount = self.amount.min(from);
        if amount == 0 {
            return Ok(Step::Abandon);
        }
        written(txn.set(self.from.clone(), value_of(from - amount)))?;
        written(txn.set(self.to.clone(), value_of(to + amount)))?;
        Ok(Step::Commit)
    }
}

#[derive(Debug)]
struct Audit {
    accounts: Arc<[Key]>,
    has_read: bool,
}

impl Script for Audit {
    fn reads_only(&self) -> &[Key] {
        &self.accounts
    }

    fn step(&mut self, _: &mut Transaction, balances: Found) -> Checked<Step> {
        if !self.has_read {
            self.has_read = true;
            return Ok(Step::Read(self.accounts.to_vec()));
        }
        check_total(&self.accounts, &balances)?;
        Ok(Step::Commit)
    }
}

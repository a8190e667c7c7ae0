//! Who waits for an answer, and until when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::PdError;
use crate::request::pd::{PdRequest, PdResponse};
use crate::time::Time;

/// Names a question of one waiter. Ids grow: a question asked later has a greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct QuestionId(u64);

/// The questions that have no answer yet, and the answers that have not been fetched yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting<W> {
    next: QuestionId,
    questions: BTreeMap<QuestionId, Question<W>>,
    by_waiter: BTreeMap<W, QuestionId>,
    deadlines: BTreeSet<(Time, QuestionId)>,
    answers: VecDeque<(W, Result<PdResponse, PdError>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question<W> {
    waiter: W,
    request: PdRequest,
    deadline: Time,
}

impl<W: Clone + Ord> Waiting<W> {
    pub(super) fn new() -> Self {
        Waiting {
            next: QuestionId::default(),
            questions: BTreeMap::new(),
            by_waiter: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            answers: VecDeque::new(),
        }
    }

    /// A new question of a waiter that has none.
    pub(super) fn ask(&mut self, waiter: W, request: PdRequest, deadline: Time) -> QuestionId {
        let id = self.next;
        self.next = QuestionId(id.0 + 1);
        self.by_waiter.insert(waiter.clone(), id);
        self.deadlines.insert((deadline, id));
        self.questions.insert(id, Question { waiter, request, deadline });
        id
    }

    /// The id that the next question will get: every question asked so far has a smaller one.
    pub(super) fn next_id(&self) -> QuestionId {
        self.next
    }

    /// Answers a waiter that may not ask.
    pub(super) fn refuse(&mut self, waiter: W, error: PdError) {
        self.answers.push_back((waiter, Err(error)));
    }

    /// Answers a question; nothing happens if nobody waits for it any more.
    pub(super) fn answer(&mut self, id: QuestionId, answer: Result<PdResponse, PdError>) {
        if let Some(question) = self.remove(id) {
            self.answers.push_back((question.waiter, answer));
        }
    }

    /// Answers everything that waits with an error.
    pub(super) fn fail_all(&mut self, error: &PdError) {
        for (_, question) in std::mem::take(&mut self.questions) {
            self.answers.push_back((question.waiter, Err(error.clone())));
        }
        self.by_waiter.clear();
        self.deadlines.clear();
    }

    /// Forgets the waiter's question, or the answer to it.
    pub(super) fn forget(&mut self, waiter: &W) -> Option<(QuestionId, PdRequest)> {
        match self.by_waiter.get(waiter).copied() {
            Some(id) => self.remove(id).map(|question| (id, question.request)),
            None => {
                self.answers.retain(|(answered, _)| answered != waiter);
                None
            }
        }
    }

    /// Takes the next question whose deadline has passed and answers it with the error that `why` finds.
    pub(super) fn expire(
        &mut self,
        now: Time,
        why: impl FnOnce(&PdRequest, QuestionId) -> PdError,
    ) -> Option<(QuestionId, PdRequest)> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        let question = self.remove(id)?;
        self.answers.push_back((question.waiter, Err(why(&question.request, id))));
        Some((id, question.request))
    }

    pub(super) fn contains(&self, id: QuestionId) -> bool {
        self.questions.contains_key(&id)
    }

    pub(super) fn next_answer(&mut self) -> Option<(W, Result<PdResponse, PdError>)> {
        self.answers.pop_front()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline).filter(|deadline| *deadline < Time::MAX)
    }

    /// How many questions wait.
    pub(super) fn len(&self) -> usize {
        self.questions.len()
    }

    fn remove(&mut self, id: QuestionId) -> Option<Question<W>> {
        let question = self.questions.remove(&id)?;
        self.by_waiter.remove(&question.waiter);
        self.deadlines.remove(&(question.deadline, id));
        Some(question)
    }
}

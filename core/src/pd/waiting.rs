//! Who waits for an answer, and until when.

use std::collections::VecDeque;

use crate::error::PdError;
use crate::request::pd::{PdRequest, PdResponse};
use crate::slots::Slots;
use crate::time::Time;

/// Names a question. Ids grow: a question asked later has a greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(u64);

/// The questions that have no answer yet, and the answers that have not been fetched yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting<W> {
    questions: Slots<Question<W>>,
    /// Whether no question had an earlier deadline than the one asked before it.
    in_order: bool,
    /// Of the question that was asked last.
    last_deadline: Time,
    answers: VecDeque<(QuestionId, W, Result<PdResponse, PdError>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question<W> {
    waiter: W,
    request: PdRequest,
    deadline: Time,
}

impl<W> Waiting<W> {
    pub(super) fn new() -> Self {
        Waiting { questions: Slots::default(), in_order: true, last_deadline: Time::ZERO, answers: VecDeque::new() }
    }

    pub(super) fn ask(&mut self, waiter: W, request: PdRequest, deadline: Time) -> QuestionId {
        let is_only = self.questions.len() == 0;
        self.in_order = is_only || (self.in_order && self.last_deadline <= deadline);
        self.last_deadline = deadline;
        QuestionId(self.questions.insert(Question { waiter, request, deadline }))
    }

    /// The id that the next question will get: every question asked so far has a smaller one.
    pub(super) fn next_id(&self) -> QuestionId {
        QuestionId(self.questions.next_id())
    }

    /// Answers a question; nothing happens if nobody waits for it any more.
    pub(super) fn answer(&mut self, id: QuestionId, answer: Result<PdResponse, PdError>) {
        if let Some(question) = self.questions.remove(id.0) {
            self.answers.push_back((id, question.waiter, answer));
        }
    }

    /// Answers everything that waits with an error.
    pub(super) fn fail_all(&mut self, error: &PdError) {
        let ids: Vec<_> = self.questions.iter().map(|(id, _)| QuestionId(id)).collect();
        ids.into_iter().for_each(|id| self.answer(id, Err(error.clone())));
    }

    /// Forgets a question, or the answer to it. Returns what was asked, if it has no answer yet.
    pub(super) fn forget(&mut self, id: QuestionId) -> Option<PdRequest> {
        let question = self.questions.remove(id.0);
        if question.is_none() {
            self.answers.retain(|(answered, ..)| *answered != id);
        }
        question.map(|question| question.request)
    }

    /// The questions whose deadline has passed, the earliest deadline first.
    pub(super) fn overdue(&self, now: Time) -> Vec<(QuestionId, PdRequest)> {
        let overdue = self.questions.iter().filter(|(_, question)| question.deadline <= now);
        let mut overdue: Vec<_> = overdue.collect();
        overdue.sort_by_key(|(id, question)| (question.deadline, *id));
        overdue.into_iter().map(|(id, question)| (QuestionId(id), question.request.clone())).collect()
    }

    pub(super) fn contains(&self, id: QuestionId) -> bool {
        self.questions.contains(id.0)
    }

    pub(super) fn next_answer(&mut self) -> Option<(W, Result<PdResponse, PdError>)> {
        self.answers.pop_front().map(|(_, waiter, answer)| (waiter, answer))
    }

    /// That of the oldest question, most of the time, since most have the same time limit; else a look at every question.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let mut deadlines = self.questions.iter().map(|(_, question)| question.deadline);
        let next = if self.in_order { deadlines.next() } else { deadlines.min() };
        next.filter(|deadline| *deadline < Time::MAX)
    }

    /// How many questions wait.
    pub(super) fn len(&self) -> usize {
        self.questions.len()
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        /// A question with that deadline is asked where there is one, else the n-th oldest is answered.
        fn the_next_deadline_is_the_earliest_of_all(steps: Vec<(Option<u8>, usize)>) -> bool {
            let (mut waiting, mut model) = (Waiting::new(), Vec::new());
            steps.into_iter().all(|(deadline, n)| {
                match (deadline, n.checked_rem(model.len())) {
                    (None, Some(n)) => {
                        let (id, _) = model.remove(n);
                        waiting.answer(id, Err(PdError::Closed));
                    }
                    (deadline, _) => {
                        let deadline = Time::from_millis(deadline.unwrap_or_default().into());
                        model.push((waiting.ask((), PdRequest::Timestamp, deadline), deadline));
                    }
                }
                waiting.next_deadline() == model.iter().map(|(_, deadline)| *deadline).min()
            })
        }
    }
}

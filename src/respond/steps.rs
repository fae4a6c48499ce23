//! Where an event's work stands, by the turns it has had, and what comes next.
//!
//! A job has turns under numbers from 1 on. A round begins when the job does, and anew when an operator replays its dead
//! letter. A stored answer is never paid for again: it is judged, whoever asked for it.

use super::failures::{INTERRUPTED, TIME_LIMIT};
use crate::ids::ResponseId;

/// A turn of a job, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTurn {
    pub id: ResponseId,
    pub number: i32,
    pub state: TurnState,
    /// It began in the present round.
    pub this_round: bool,
    /// Whether a provider was asked by the process that ended it, or that has it now.
    pub asked: bool,
    /// How often a process died that had asked a provider.
    pub lost: u32,
}

/// How far a turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnState {
    /// It runs, or waits for a server.
    Open {
        /// Its lease has run out: nobody runs it.
        lapsed: bool,
        /// The server's, not this job's own.
        background: bool,
    },
    Completed,
    Failed {
        code: String,
    },
    Cancelled,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask a model, under this number. `repair`: that turn's answer did not fit.
    Ask {
        number: i32,
        repair: Option<ResponseId>,
    },
    /// A turn runs elsewhere.
    Wait,
    /// Its process is gone: run it again.
    TakeOver(ResponseId),
    /// It has an answer.
    Judge(ResponseId),
    /// A server's turn came to nothing: what follows is told by its code.
    Failed {
        code: String,
    },
    /// Asked twice, it gave no answer that fits.
    Misfit,
    /// As many turns as one round may pay for have come to nothing.
    Spent,
    Cancelled,
}

/// The event, and once more what is wrong with the answer.
const ASKED_AT_MOST: usize = 2;

/// How many answers a turn may have cost.
fn paid(turn: &SeenTurn) -> u32 {
    let once = match &turn.state {
        TurnState::Completed => true,
        TurnState::Failed { code } => turn.asked && [INTERRUPTED, TIME_LIMIT].contains(&code.as_str()),
        TurnState::Open { .. } | TurnState::Cancelled => false,
    };
    turn.lost + u32::from(once)
}

/// What comes next for a job with these turns, oldest first.
///
/// `judged`: the answer of the last turn is known not to fit. `heard`: what follows from the failure of the last turn
/// was done already. `most`: how many answers one round may pay for.
pub fn next(turns: &[SeenTurn], judged: bool, heard: bool, most: u32) -> Step {
    let round = || turns.iter().filter(|turn| turn.this_round);
    let answers = round().filter(|turn| turn.state == TurnState::Completed).count();
    if let Some(last) = turns.last() {
        match &last.state {
            TurnState::Open { lapsed: true, background: false } => return Step::TakeOver(last.id),
            TurnState::Open { .. } => return Step::Wait,
            TurnState::Completed if !judged => return Step::Judge(last.id),
            TurnState::Completed if answers >= ASKED_AT_MOST => return Step::Misfit,
            TurnState::Failed { code } if last.this_round && !heard => {
                return Step::Failed { code: code.clone() };
            }
            TurnState::Cancelled if last.this_round => return Step::Cancelled,
            TurnState::Completed | TurnState::Failed { .. } | TurnState::Cancelled => {}
        }
    }
    if round().map(paid).sum::<u32>() >= most {
        return Step::Spent;
    }
    let number = turns.last().map_or(1, |last| last.number + 1);
    let misfit = round().rfind(|turn| turn.state == TurnState::Completed);
    Step::Ask { number, repair: misfit.map(|turn| turn.id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(number: i32, this_round: bool, state: TurnState) -> SeenTurn {
        SeenTurn { id: ResponseId::new(), number, state, this_round, asked: true, lost: 0 }
    }

    fn failed(code: &str) -> TurnState {
        TurnState::Failed { code: code.into() }
    }

    fn open(lapsed: bool, background: bool) -> TurnState {
        TurnState::Open { lapsed, background }
    }

    #[test]
    fn a_stored_answer_is_judged_and_never_asked_for_again() {
        assert_eq!(next(&[], false, false, 3), Step::Ask { number: 1, repair: None });
        for this_round in [true, false] {
            let turns = [turn(1, this_round, TurnState::Completed)];
            assert_eq!(next(&turns, false, false, 3), Step::Judge(turns[0].id));
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_is_repaired_once() {
        let mut turns = vec![turn(1, true, TurnState::Completed)];
        assert_eq!(next(&turns, true, false, 3), Step::Ask { number: 2, repair: Some(turns[0].id) });
        // The repair's provider was away: it is still the repair that is asked for.
        turns.push(turn(2, true, failed("provider_unreachable")));
        assert_eq!(next(&turns, true, true, 3), Step::Ask { number: 3, repair: Some(turns[0].id) });
        turns.push(turn(3, true, TurnState::Completed));
        assert_eq!(next(&turns, false, false, 3), Step::Judge(turns[2].id));
        assert_eq!(next(&turns, true, false, 3), Step::Misfit);
        // A replay begins anew, with the event itself.
        turns.iter_mut().for_each(|turn| turn.this_round = false);
        assert_eq!(next(&turns, true, false, 3), Step::Ask { number: 4, repair: None });
    }

    #[test]
    fn a_turn_that_runs_is_waited_for_and_one_whose_process_is_gone_is_taken_over() {
        let turns = [turn(1, true, open(false, false))];
        assert_eq!(next(&turns, false, false, 3), Step::Wait);
        let turns = [turn(1, true, open(true, false))];
        assert_eq!(next(&turns, false, false, 3), Step::TakeOver(turns[0].id));
        assert_eq!(next(&[turn(1, true, open(true, true))], false, false, 3), Step::Wait, "the server's own");
    }

    #[test]
    fn a_failure_is_acted_on_once_and_then_asked_again() {
        let turns = [turn(1, true, failed("provider_error"))];
        assert_eq!(next(&turns, false, false, 3), Step::Failed { code: "provider_error".into() });
        assert_eq!(next(&turns, false, true, 3), Step::Ask { number: 2, repair: None });
        let earlier = [turn(1, false, failed("content_filter"))];
        assert_eq!(next(&earlier, false, false, 3), Step::Ask { number: 2, repair: None });
        assert_eq!(next(&[turn(1, true, TurnState::Cancelled)], false, false, 3), Step::Cancelled);
    }

    #[test]
    fn one_round_pays_for_so_many_answers_only() {
        let cut = |number| turn(number, true, failed("interrupted"));
        assert_eq!(next(&[cut(1), cut(2)], false, true, 3), Step::Ask { number: 3, repair: None });
        assert_eq!(next(&[cut(1), cut(2), cut(3)], false, true, 3), Step::Spent);
        let again = SeenTurn { lost: 2, ..cut(1) };
        assert_eq!(next(&[again], false, true, 3), Step::Spent);
        let lost = SeenTurn { lost: 3, ..turn(1, true, failed("process_lost")) };
        assert_eq!(next(&[lost], false, true, 3), Step::Spent);
        let never = |number| SeenTurn { asked: false, ..cut(number) };
        let unasked: Vec<_> = (1..10).map(never).collect();
        let ask = Step::Ask { number: 10, repair: None };
        assert_eq!(next(&unasked, false, true, 3), ask, "cut before anybody was asked");
        let away: Vec<_> = (1..50).map(|number| turn(number, true, failed("provider_unreachable"))).collect();
        assert_eq!(next(&away, false, true, 3), Step::Ask { number: 50, repair: None }, "nothing was paid");
    }
}

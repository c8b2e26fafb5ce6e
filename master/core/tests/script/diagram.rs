//! Reads the diagram of states in `state.rs`, and compares it with the moves that are legal.

use std::collections::BTreeSet;
use taskmaster_core::{FinalState, State};
use taskmaster_protocol::TaskState;

/// The moves that the diagram draws. A line is followed from the word of a state to the head of an
/// arrow, cell by cell.
fn drawn_moves(picture: &[Vec<char>]) -> BTreeSet<(String, String)> {
    let at = |row: usize, col: usize| {
        picture
            .get(row)
            .and_then(|line| line.get(col))
            .copied()
            .unwrap_or(' ')
    };
    let word = |row: usize, col: usize| {
        let mut start = col;
        while start > 0 && at(row, start - 1).is_alphabetic() {
            start -= 1;
        }
        (start..)
            .map(|c| at(row, c))
            .take_while(|c| c.is_alphabetic())
            .collect::<String>()
    };
    let mut moves = BTreeSet::new();
    for (row, line) in picture.iter().enumerate() {
        for col in 0..line.len() {
            let from = word(row, col);
            if !TaskState::ALL.iter().any(|state| state.as_str() == from) {
                continue;
            }
            // Each way is (row, column, step down, step right). Lines leave a word downwards or to
            // the right.
            let mut ways = vec![(row + 1, col, 1, 0)];
            if !at(row, col + 1).is_alphabetic() {
                ways.push((row, col + 3, 0, 1));
            }
            while let Some((row, col, down, right)) = ways.pop() {
                let go = |down: isize, right: isize| {
                    (
                        row.wrapping_add_signed(down),
                        col.wrapping_add_signed(right),
                        down,
                        right,
                    )
                };
                match (at(row, col), down, right) {
                    ('│', 1 | -1, _) | ('─', _, 1 | -1) => ways.push(go(down, right)),
                    ('┤', 1, _) => ways.extend([go(1, 0), go(0, -1)]),
                    ('┴', _, -1) => ways.extend([go(-1, 0), go(0, -1)]),
                    ('└', _, -1) => ways.push(go(-1, 0)),
                    ('▲', -1, _) => drop(moves.insert((from.clone(), word(row - 1, col)))),
                    ('▼', 1, _) => drop(moves.insert((from.clone(), word(row + 1, col)))),
                    ('►', _, 1) => drop(moves.insert((from.clone(), word(row, col + 3)))),
                    _ => {}
                }
            }
        }
    }
    moves
}

#[test]
fn the_diagram_draws_the_states_and_the_moves_that_are_legal() {
    let source = include_str!("../../src/state.rs");
    let picture: Vec<Vec<char>> = source
        .lines()
        .skip_while(|line| !line.contains("```text"))
        .skip(1)
        .take_while(|line| !line.contains("```"))
        .map(|line| line.trim_start_matches("//!").chars().collect())
        .collect();
    let text: String = picture
        .iter()
        .flat_map(|line| line.iter().chain([&'\n']))
        .collect();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphabetic()).collect();
    for state in TaskState::ALL {
        assert!(
            words.contains(&state.as_str()),
            "the diagram does not name {}",
            state.as_str()
        );
    }
    let mut moves = drawn_moves(&picture);
    assert!(text.contains("cancelled ◄── from any open state"));
    for state in TaskState::ALL.into_iter().filter(|state| !state.is_final()) {
        moves.insert((state.as_str().into(), "cancelled".into()));
    }
    // The moves that the diagram leaves out, each with its reason.
    for (from, to, _why) in [
        ("blocked", "blocked", "one dependency of several is met"),
        ("blocked", "ready", "there is no earliest start to wait for"),
        ("delayed", "delayed", "another time was set"),
        (
            "ready",
            "delayed",
            "a time was set; an attempt of a lost runner reports its error",
        ),
        (
            "ready",
            "ready",
            "a runner keeps its slots for the task, or does no longer",
        ),
        ("delayed", "assigned", "a runner comes back with an attempt"),
        ("delayed", "done", "a late success"),
        ("ready", "done", "a late success"),
        ("delayed", "failed", "a late error was the last"),
        ("ready", "failed", "a late error was the last"),
        ("assigned", "assigned", "nothing changes"),
        (
            "assigned",
            "blocked",
            "the task goes on as one that waits for others",
        ),
    ] {
        assert!(
            moves.insert((from.into(), to.into())),
            "{from} to {to} is drawn"
        );
    }
    let states = [
        State::Blocked { open: 1 },
        State::Delayed,
        State::Ready { reserved: false },
        State::Assigned,
        State::Ended(FinalState::Done),
        State::Ended(FinalState::Failed),
        State::Ended(FinalState::Cancelled),
        State::Ended(FinalState::Skipped),
    ];
    assert_eq!(states.map(State::task_state), TaskState::ALL);
    for (from, to) in states
        .iter()
        .flat_map(|from| states.iter().map(move |to| (*from, *to)))
    {
        let (from_name, to_name) = (from.task_state().as_str(), to.task_state().as_str());
        let is_drawn = moves.contains(&(from_name.into(), to_name.into()));
        assert_eq!(
            from.may_become(to),
            is_drawn,
            "{from_name} to {to_name}, drawn: {is_drawn}"
        );
    }
}

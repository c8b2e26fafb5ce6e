use super::*;
use taskmaster_protocol::message::ResultRef;
use taskmaster_protocol::{AttemptId, Hash, JobName, Json, ModuleName, TaskId};

const MS: u64 = 1_000;

fn name(n: u32) -> Attempt {
    Attempt {
        id: TaskId::new(&format!("t{n}")).unwrap(),
        attempt: AttemptId { epoch: 1, n: 1 },
    }
}

fn send(n: u32, slots: u32) -> Assignment {
    let Attempt { id, attempt } = name(n);
    Assignment {
        id,
        attempt,
        module: ModuleName::new("m").unwrap(),
        version: Hash::of(b"m"),
        job: JobName::new("j").unwrap(),
        params: None,
        results: BTreeMap::new(),
        job_results: BTreeMap::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        inputs: BTreeMap::new(),
        outputs: None,
        timeout_ms: 1_000,
        memory_mb: 1,
        slots,
        capabilities: None,
        is_cached: false,
    }
}

fn done(n: u32) -> Ending {
    let Attempt { id, attempt } = name(n);
    Ending::Done(Done {
        id,
        attempt,
        result: ResultRef::Json(Json::null()),
        outputs: BTreeMap::new(),
        started_us: 0,
        stats: TaskStats::default(),
        cache_s: None,
        log: Log::default(),
        adds: Vec::new(),
        then: None,
    })
}

/// A session and its clock. Effects become short words, so that tests read like scripts.
struct Script {
    session: RunnerSession,
    now_us: u64,
}

impl Script {
    /// A connected session that has sent its first request.
    fn up(slots: u32) -> Script {
        let mut script = Script {
            session: RunnerSession::new(SessionSettings { slots, ahead: 0 }),
            now_us: 0,
        };
        assert_eq!(script.event(SessionEvent::Tick), ["dial"]);
        assert_eq!(
            script.event(SessionEvent::Connected),
            [format!("request {} held []", slots + CREDITS_BEYOND_SLOTS)]
        );
        script
    }

    fn event(&mut self, event: SessionEvent) -> Vec<String> {
        let mut effects = Vec::new();
        self.session.handle(event, self.now_us, &mut effects);
        effects.iter().map(word).collect()
    }

    fn after(&mut self, us: u64, event: SessionEvent) -> Vec<String> {
        self.now_us += us;
        self.event(event)
    }

    fn send(&mut self, tasks: &[(u32, u32)]) -> Vec<String> {
        self.event(SessionEvent::Send(
            tasks.iter().map(|(n, slots)| send(*n, *slots)).collect(),
        ))
    }
}

fn ids<'a>(attempts: impl IntoIterator<Item = &'a TaskId>) -> String {
    attempts
        .into_iter()
        .map(TaskId::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

fn word(effect: &SessionEffect) -> String {
    match effect {
        SessionEffect::Dial => "dial".into(),
        SessionEffect::Hangup => "hangup".into(),
        SessionEffect::Ping => "ping".into(),
        SessionEffect::Leave => "leave".into(),
        SessionEffect::CheckMachine => "check".into(),
        SessionEffect::Start(send) => format!("start {}", send.id),
        SessionEffect::Stop(attempt) => format!("stop {}", attempt.id),
        SessionEffect::TakeBack(attempts) => {
            format!("take back {}", ids(attempts.iter().map(|a| &a.id)))
        }
        SessionEffect::Say(ToMaster::Request(request)) => {
            let held = request
                .held
                .as_ref()
                .map(|held| format!(" held [{}]", ids(held.iter().map(|a| &a.id))));
            let draining = if request.draining { " draining" } else { "" };
            let fault = request.fault.as_ref();
            format!(
                "request {}{}{draining}{}",
                request.credits,
                held.unwrap_or_default(),
                fault.map_or(String::new(), |fault| format!(" sick: {fault}"))
            )
        }
        SessionEffect::Say(ToMaster::Done(done)) => {
            format!("done {}", ids(done.iter().map(|d| &d.id)))
        }
        SessionEffect::Say(ToMaster::Failed(failed)) => {
            format!(
                "{} {}",
                failed[0].error.kind.as_str(),
                ids(failed.iter().map(|f| &f.id))
            )
        }
        SessionEffect::Say(ToMaster::Returned(attempts)) => {
            format!("returned {}", ids(attempts.iter().map(|a| &a.id)))
        }
        SessionEffect::Say(other) => panic!("a runner does not say {}", other.event()),
    }
}

#[test]
fn tasks_start_in_order_as_slots_become_free() {
    let mut script = Script::up(2);
    assert_eq!(
        script.send(&[(1, 1), (2, 1), (3, 1), (4, 1)]),
        ["start t1", "start t2"]
    );
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(2), done(1)])),
        ["done t2 t1", "start t3", "start t4"]
    );
    assert_eq!(
        script.event(SessionEvent::Ack(vec![name(1), name(2)])),
        [""; 0]
    );
    assert_eq!(script.session.held(), 2);
}

#[test]
fn a_task_of_many_slots_waits_for_them_and_is_not_passed_by() {
    let mut script = Script::up(3);
    assert_eq!(script.send(&[(1, 1), (2, 3), (3, 1)]), ["start t1"]);
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(1)])),
        ["done t1", "start t2"]
    );
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(2)])),
        ["done t2", "start t3"]
    );
    assert_eq!(
        script.send(&[(4, 99)]),
        [""; 0],
        "more than there are: all of them"
    );
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(3)])),
        ["done t3", "start t4"]
    );
}

#[test]
fn an_attempt_is_taken_once() {
    let mut script = Script::up(1);
    assert_eq!(script.send(&[(1, 1), (1, 1), (2, 1)]), ["start t1"]);
    assert_eq!(script.send(&[(1, 1), (2, 1)]), [""; 0]);
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(1), done(1)])),
        ["done t1", "start t2"]
    );
    assert_eq!(
        script.send(&[(1, 1)]),
        [""; 0],
        "it is kept until it is acknowledged"
    );
}

#[test]
fn recall_gives_back_what_has_not_begun() {
    let mut script = Script::up(1);
    script.send(&[(1, 1), (2, 1), (3, 1)]);
    assert_eq!(
        script.event(SessionEvent::Recall(vec![name(2), name(9)])),
        ["returned t2"]
    );
    assert_eq!(
        script.event(SessionEvent::Recall(vec![name(1), name(3)])),
        ["returned t3", "take back t1"]
    );
    assert_eq!(
        script.event(SessionEvent::TakenBack(vec![])),
        ["returned "],
        "it runs"
    );
    assert_eq!(
        script.event(SessionEvent::Recall(vec![name(1)])),
        ["take back t1"]
    );
    assert_eq!(
        script.event(SessionEvent::TakenBack(vec![name(1)])),
        ["returned t1"]
    );
    assert_eq!(script.session.held(), 0);
    assert_eq!(
        script.send(&[(1, 1)]),
        ["start t1"],
        "its slot is free, and it may come again"
    );
}

#[test]
fn cancel_drops_stops_or_forgets() {
    let mut script = Script::up(1);
    script.send(&[(1, 1), (2, 1)]);
    assert_eq!(
        script.event(SessionEvent::Cancel(vec![name(1), name(2), name(9)])),
        ["stop t1", "cancelled t2"]
    );
    assert_eq!(
        script.event(SessionEvent::Ended(vec![Ending::cancelled(name(1))])),
        ["cancelled t1"]
    );
    assert_eq!(script.session.held(), 2);
    script.event(SessionEvent::Ack(vec![name(1)]));
    script.event(SessionEvent::Cancel(vec![name(2)]));
    assert_eq!(script.session.held(), 0, "acknowledged, or void");
}

#[test]
fn an_acknowledgement_never_forgets_a_running_attempt() {
    let mut script = Script::up(1);
    script.send(&[(1, 1)]);
    script.event(SessionEvent::Ack(vec![name(1)]));
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(1)])),
        ["done t1"]
    );
}

#[test]
fn a_lost_link_loses_nothing() {
    let mut script = Script::up(1);
    script.send(&[(1, 1), (2, 1), (3, 1)]);
    script.event(SessionEvent::Ended(vec![done(1)]));
    assert_eq!(
        script.event(SessionEvent::Disconnected { jitter: 1_000 }),
        [""; 0]
    );
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(2)])),
        ["start t3"],
        "it works on, and talks to nobody"
    );
    assert_eq!(script.after(50 * MS, SessionEvent::Tick), ["dial"]);
    assert_eq!(
        script.event(SessionEvent::Connected),
        ["request 2049 held [t1 t2 t3]", "done t1 t2"]
    );
    script.event(SessionEvent::Ack(vec![name(1)]));
    script.event(SessionEvent::Disconnected { jitter: 0 });
    script.after(25 * MS, SessionEvent::Tick);
    assert_eq!(
        script.event(SessionEvent::Connected),
        ["request 2049 held [t2 t3]", "done t2"]
    );
}

#[test]
fn pauses_between_dials_double_up_to_a_second() {
    let mut script = Script {
        session: RunnerSession::new(SessionSettings { slots: 1, ahead: 0 }),
        now_us: 0,
    };
    assert_eq!(script.event(SessionEvent::Tick), ["dial"]);
    for ms in [50, 100, 200, 400, 800, 1_000, 1_000] {
        assert_eq!(
            script.event(SessionEvent::Disconnected { jitter: 1_000 }),
            [""; 0]
        );
        assert_eq!(
            script.session.next_deadline(),
            Some(script.now_us + ms * MS)
        );
        assert_eq!(script.after(ms * MS - 1, SessionEvent::Tick), [""; 0]);
        assert_eq!(script.after(1, SessionEvent::Tick), ["dial"]);
    }
    script.event(SessionEvent::Connected);
    script.event(SessionEvent::Disconnected { jitter: 0 });
    assert_eq!(
        script.session.next_deadline(),
        Some(script.now_us + 25 * MS)
    );
}

#[test]
fn a_silent_master_is_pinged_then_left() {
    let mut script = Script::up(1);
    for _ in 0..3 {
        assert_eq!(
            script.after(limits::PING_MS * MS, SessionEvent::Tick),
            ["ping"]
        );
    }
    assert_eq!(script.after(500 * MS, SessionEvent::Tick), ["hangup"]);
    assert_eq!(script.after(1, SessionEvent::Tick), [""; 0]);
    script.event(SessionEvent::Disconnected { jitter: 0 });
    script.after(25 * MS, SessionEvent::Tick);
    script.event(SessionEvent::Connected);
    script.after(3_000 * MS, SessionEvent::Heard);
    assert!(script.session.next_deadline().unwrap() > script.now_us);
}

#[test]
fn a_drained_runner_gives_back_finishes_delivers_and_leaves() {
    let mut script = Script::up(1);
    script.send(&[(1, 1), (2, 1)]);
    assert_eq!(
        script.event(SessionEvent::Drain {
            grace_us: Some(30_000 * MS)
        }),
        ["request 0 draining", "returned t2", "take back t1"]
    );
    assert_eq!(script.event(SessionEvent::TakenBack(vec![])), ["returned "]);
    assert_eq!(
        script.send(&[(3, 1)]),
        ["returned t3"],
        "it crossed the word on the wire"
    );
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(1)])),
        ["done t1"]
    );
    assert_eq!(script.event(SessionEvent::Ack(vec![name(1)])), ["leave"]);
    assert_eq!(script.session.next_deadline(), None);
    assert_eq!(script.send(&[(4, 1)]), [""; 0]);
}

#[test]
fn grace_ends() {
    let mut script = Script::up(1);
    script.send(&[(1, 1)]);
    script.event(SessionEvent::Drain {
        grace_us: Some(100 * MS),
    });
    assert_eq!(script.session.next_deadline(), Some(100 * MS));
    assert_eq!(
        script.after(100 * MS, SessionEvent::Tick),
        ["stop t1", "returned t1", "leave"]
    );
    let mut idle = Script::up(1);
    assert_eq!(
        idle.event(SessionEvent::Drain { grace_us: None }),
        ["request 0 draining", "leave"]
    );
}

#[test]
fn a_drained_runner_without_a_master_waits_for_one_within_its_grace() {
    let mut script = Script::up(1);
    script.send(&[(1, 1)]);
    script.event(SessionEvent::Ended(vec![done(1)]));
    script.event(SessionEvent::Disconnected { jitter: 0 });
    script.event(SessionEvent::Drain {
        grace_us: Some(10_000 * MS),
    });
    script.after(25 * MS, SessionEvent::Tick);
    assert_eq!(
        script.event(SessionEvent::Connected),
        ["request 0 held [t1] draining", "done t1"]
    );
    assert_eq!(script.event(SessionEvent::Ack(vec![name(1)])), ["leave"]);
}

#[test]
fn attempts_are_handed_out_ahead_of_free_slots_where_the_executor_queues() {
    let mut script = Script {
        session: RunnerSession::new(SessionSettings { slots: 1, ahead: 2 }),
        now_us: 0,
    };
    script.event(SessionEvent::Tick);
    script.event(SessionEvent::Connected);
    assert_eq!(
        script.send(&[(1, 1), (2, 1), (3, 1), (4, 1)]),
        ["start t1", "start t2", "start t3"]
    );
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(1)])),
        ["done t1", "start t4"]
    );
}

#[test]
fn the_clock_never_runs_backwards() {
    let mut script = Script::up(1);
    script.after(5_000 * MS, SessionEvent::Heard);
    script.now_us = 0;
    assert_eq!(
        script.event(SessionEvent::Disconnected { jitter: 0 }),
        [""; 0]
    );
    assert_eq!(script.session.next_deadline(), Some(5_025 * MS));
}

fn machine_failed(fault: &str, attempts: &[u32]) -> SessionEvent {
    SessionEvent::MachineFailed {
        fault: fault.into(),
        attempts: attempts.iter().copied().map(name).collect(),
    }
}

#[test]
fn a_sick_machine_takes_nothing_gives_back_what_has_not_begun_and_comes_back() {
    let mut script = Script::up(2);
    script.send(&[(1, 1), (2, 1), (3, 1)]);
    assert_eq!(
        script.event(machine_failed("no disk", &[2])),
        [
            "request 0 sick: no disk",
            "returned t2",
            "returned t3",
            "take back t1"
        ],
        "it says that it takes nothing before anything is sent to it again"
    );
    assert_eq!(script.event(SessionEvent::TakenBack(vec![])), ["returned "]);
    assert_eq!(script.send(&[(4, 1)]), ["returned t4"]);
    assert_eq!(
        script.event(SessionEvent::Ended(vec![done(1)])),
        ["done t1"],
        "what ran is finished and told"
    );
    assert_eq!(script.session.next_deadline(), Some(250 * MS));
    assert_eq!(script.after(250 * MS, SessionEvent::Tick), ["check"]);
    assert_eq!(
        script.event(SessionEvent::Tick),
        [""; 0],
        "one look at a time"
    );
    let still = SessionEvent::MachineChecked(Err("no disk".into()));
    assert_eq!(script.event(still), [""; 0], "nothing new");
    assert_eq!(script.after(500 * MS, SessionEvent::Tick), ["check"]);
    let other = SessionEvent::MachineChecked(Err("full".into()));
    assert_eq!(script.event(other), ["request 0 sick: full"]);
    assert_eq!(script.after(1_000 * MS, SessionEvent::Tick), ["check"]);
    assert_eq!(
        script.event(SessionEvent::MachineChecked(Ok(()))),
        [format!("request {}", 2 + CREDITS_BEYOND_SLOTS)]
    );
    assert_eq!(script.send(&[(5, 1)]), ["start t5"]);
}

#[test]
fn a_machine_that_fails_again_soon_rests_longer_and_one_that_was_well_for_long_does_not() {
    let mut script = Script::up(1);
    let mut pauses = Vec::new();
    for round in 0..10 {
        let healthy_us = if round == 9 { 300_000 * MS } else { 1_000 * MS };
        script.after(healthy_us, machine_failed("no disk", &[]));
        let at = script.session.health.look_at_us().unwrap();
        pauses.push((at - script.now_us) / MS);
        script.after(at - script.now_us, SessionEvent::Tick);
        script.event(SessionEvent::MachineChecked(Ok(())));
    }
    assert_eq!(
        pauses,
        [
            250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 250
        ]
    );
}

#[test]
fn a_sick_runner_says_so_to_the_next_master_too() {
    let mut script = Script::up(1);
    script.send(&[(1, 1)]);
    script.event(SessionEvent::Disconnected { jitter: 0 });
    assert_eq!(script.event(machine_failed("no disk", &[1])), [""; 0]);
    script.after(25 * MS, SessionEvent::Tick);
    assert_eq!(
        script.event(SessionEvent::Connected),
        ["request 0 held [] sick: no disk"],
        "what it gave back while it was away runs elsewhere"
    );
}

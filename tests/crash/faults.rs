//! What goes wrong, and when: drawn from the seed. One thing after the other, most of them only
//! when the last is healed, so that the time of healing can be taken; some at once on top of it, as
//! in the middle of a start.

use crate::cluster::Cluster;
use std::time::{Duration, Instant};
use taskmaster_harness::PATIENCE;
use taskmaster_harness::chance::Chance;
use taskmaster_harness::witness::Witness;

/// Longer than a peer may be silent (`SILENT_MS_MAX`, 9.5 s): nobody is there any more when it
/// wakes.
const PAUSE: Duration = Duration::from_millis(11_000);

/// What was done, and how long it took until all was as before.
#[derive(Default)]
pub struct Done {
    pub master_kills: u32,
    pub runner_kills: u32,
    pub master_pauses: u32,
    pub runner_pauses: u32,
    pub stalls: u32,
    /// From the kill of a master to the first task that is durably done under the next.
    pub master: Times,
    /// From the kill of a runner to the moment when the last of what it held runs elsewhere.
    pub runner: Times,
    /// The same from its pause.
    pub paused_runner: Vec<Duration>,
    /// From the waking of a master to the next task that is done.
    pub woken_master: Vec<Duration>,
    /// Tasks that killed runners held.
    pub held: usize,
}

/// Times of healing.
#[derive(Default)]
pub struct Times {
    /// Of faults that came alone.
    pub alone: Vec<Duration>,
    /// Of those that came on top of others that were not healed.
    pub among: Vec<Duration>,
}

impl Times {
    fn take(&mut self, alone: bool, time: Duration) {
        if alone {
            &mut self.alone
        } else {
            &mut self.among
        }
        .push(time);
    }
}

/// A step of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    KillMaster,
    KillRunner,
    PauseMaster,
    PauseRunner,
    Lose,
}

pub struct Faults<'a> {
    pub cluster: &'a mut Cluster,
    pub witness: &'a Witness,
    pub chance: Chance,
    pub done: Done,
    /// Nothing that went wrong before is still felt.
    healed: bool,
    /// Tasks that a paused runner held, when it was paused.
    waiting: Vec<(Instant, Vec<String>)>,
}

impl<'a> Faults<'a> {
    pub fn new(cluster: &'a mut Cluster, witness: &'a Witness, chance: Chance) -> Faults<'a> {
        Faults {
            cluster,
            witness,
            chance,
            done: Done::default(),
            healed: true,
            waiting: Vec::new(),
        }
    }

    /// Kills the master and runners so many times each, with pauses and stalls in between.
    pub fn run(&mut self, kills: u32) {
        let mut plan = Vec::new();
        (0..kills).for_each(|_| plan.extend([Step::KillMaster, Step::KillRunner]));
        let seldom = kills.div_ceil(50);
        (0..seldom).for_each(|_| plan.extend([Step::PauseMaster, Step::PauseRunner, Step::Lose]));
        for last in (1..plan.len()).rev() {
            plan.swap(last, self.chance.below(last as u64 + 1) as usize);
        }
        for (index, step) in plan.iter().enumerate() {
            let hasty = self.chance.permille(300);
            // Cuts come all the time, whatever else goes on.
            if self.chance.permille(500) {
                self.cluster.proxy.cut();
            }
            self.step(*step, hasty);
            self.healed = !hasty;
            let gap = self.chance.below(if hasty { 400 } else { 250 });
            std::thread::sleep(Duration::from_millis(gap));
            self.tidy();
            if index % 20 == 19 {
                let seen = self.witness.seen();
                println!(
                    "  {:4} of {} faults, {} tasks ended",
                    index + 1,
                    plan.len(),
                    seen.ends.len()
                );
            }
        }
        self.heal();
    }

    fn step(&mut self, step: Step, hasty: bool) {
        match step {
            Step::KillMaster => self.kill_master(hasty),
            Step::KillRunner => self.kill_runner(hasty),
            Step::PauseMaster => self.pause_master(),
            Step::PauseRunner => self.pause_runner(),
            Step::Lose => self.lose(),
        }
    }

    fn kill_master(&mut self, hasty: bool) {
        let alone = self.is_alone();
        let before = self.witness.seen().first_done.keys().max().copied();
        let killed = Instant::now();
        self.cluster.kill_master();
        self.done.master_kills += 1;
        self.cluster.start_master();
        if hasty {
            return;
        }
        let found = self.wait("a task done after a kill of the master", |faults| {
            faults.cluster.check_master();
            let seen = faults.witness.seen();
            seen.first_done
                .iter()
                .find(|(epoch, _)| before.is_none_or(|before| **epoch > before))
                .map(|(_, at)| *at)
        });
        self.done
            .master
            .take(alone, found.saturating_duration_since(killed));
    }

    fn is_alone(&self) -> bool {
        self.healed && !self.cluster.has_paused()
    }

    /// The tasks that a runner holds, as far as that was heard.
    fn held_by(&self, runner: &str) -> Vec<String> {
        let seen = self.witness.seen();
        seen.holders
            .iter()
            .filter(|(_, holder)| *holder == runner)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// When the last of these gave a sign after `since`: begun anew, or ended.
    fn last_sign(&self, tasks: &[String], since: Instant) -> Option<Instant> {
        let seen = self.witness.seen();
        let sign = |id: &String| {
            let ended = seen.ends.get(id).map(|end| end.at);
            ended.or_else(|| seen.signs.get(id).copied().filter(|at| *at > since))
        };
        tasks
            .iter()
            .map(sign)
            .try_fold(since, |last, at| Some(last.max(at?)))
    }

    fn kill_runner(&mut self, hasty: bool) {
        let alone = self.is_alone();
        let place = self.cluster.some_runner(&mut self.chance);
        let name = self.cluster.kill_runner(place);
        let killed = Instant::now();
        self.done.runner_kills += 1;
        let held = self.held_by(&name);
        let away = self.chance.below(300);
        std::thread::sleep(Duration::from_millis(away));
        self.cluster.start_runner(place, &mut self.chance);
        self.done.held += held.len();
        if hasty || held.is_empty() {
            return;
        }
        let last = self.wait("what a dead runner held to run elsewhere", |faults| {
            faults.last_sign(&held, killed)
        });
        self.done
            .runner
            .take(alone, last.saturating_duration_since(killed));
    }

    fn pause_master(&mut self) {
        self.cluster.wait_ready();
        self.cluster.master.signal("STOP");
        std::thread::sleep(PAUSE);
        self.cluster.master.signal("CONT");
        let woken = Instant::now();
        self.done.master_pauses += 1;
        let next = self.wait("a task done after a pause of the master", |faults| {
            faults.cluster.check_master();
            faults.witness.seen().last_done.filter(|at| *at > woken)
        });
        self.done
            .woken_master
            .push(next.saturating_duration_since(woken));
    }

    /// Nothing else goes wrong until it is noticed: a kill on either side would tell.
    fn lose(&mut self) {
        // Who is stopped notices nothing.
        self.wait("paused runners to wake", |faults| {
            (!faults.cluster.has_paused()).then_some(())
        });
        self.cluster.wait_ready();
        self.done.stalls += 1;
        self.cluster.proxy.lose(self.done.stalls as usize);
        self.wait("half-open connections to be noticed", |faults| {
            (faults.cluster.proxy.noticed().1 == 0).then_some(())
        });
    }

    fn pause_runner(&mut self) {
        let place = self.cluster.some_runner(&mut self.chance);
        let name = self.cluster.pause_runner(place, PAUSE);
        self.done.runner_pauses += 1;
        self.waiting.push((Instant::now(), self.held_by(&name)));
    }

    /// What goes on beside the plan: runners that wake, tasks of paused ones that run elsewhere.
    fn tidy(&mut self) {
        self.cluster.wake_runners();
        let waiting = std::mem::take(&mut self.waiting);
        for (since, tasks) in waiting {
            match self.last_sign(&tasks, since) {
                Some(_) if tasks.is_empty() => {}
                Some(last) => self
                    .done
                    .paused_runner
                    .push(last.saturating_duration_since(since)),
                None => self.waiting.push((since, tasks)),
            }
        }
    }

    fn heal(&mut self) {
        while self.cluster.has_paused() {
            self.tidy();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.cluster.wait_ready();
        self.wait("what paused runners held to run elsewhere", |faults| {
            faults.tidy();
            faults.waiting.is_empty().then_some(())
        });
    }

    fn wait<T>(&mut self, what: &str, mut probe: impl FnMut(&mut Faults) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            let seen = self.witness.seen().seq;
            assert!(
                began.elapsed() < PATIENCE,
                "waited for {what}; seq {seen}; {}",
                self.cluster.master.said()
            );
            self.cluster.wake_runners();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

//! Questions about kept answers, and what an operator does with them.

use super::AnswerKey;
use crate::answer::QueryAnswer;
use crate::cache::key::{self, ModulePart};
use crate::engine::Engine;
use crate::engine::modules::{Changed, ModuleChange};
use crate::facts::Known;
use crate::inbox::Reply;
use crate::lookup::{
    AnswerLookup, AnswersPageLookup, Lookup, MissLookup, first_after, unknown_task,
};
use taskmaster_core::{Explanation, TaskKey};
use taskmaster_protocol::message::{
    CacheOutcome, CacheReason, CacheStats, KeptAnswerFilter, KeptAnswersPageQuery, KeyPrefix,
};
use taskmaster_protocol::{
    CacheMode, Hash, ModuleName, Refusal, RefusalCode, Salt, TaskId, TaskState, Wall, limits,
};
use taskmaster_store::body::TaskBody;
use taskmaster_store::record::Ended;

/// Why a task did not have its answer looked up, as a sentence.
struct NotLookedUp(String);

impl Engine {
    pub(in crate::engine) fn kept_answers(&self, query: KeptAnswersPageQuery) -> Reply {
        let KeptAnswersPageQuery {
            filter,
            limit,
            after,
        } = query;
        let after = match after.as_deref().map(|text| (text, Hash::parse(text))) {
            Some((text, None)) => {
                let text = format!("field `after` is `{text}`, it must be the `next` of a page");
                let refusal = Refusal::new(RefusalCode::InvalidValue, text).at("after");
                return Reply::Refused(refusal);
            }
            Some((_, key)) => key,
            None => None,
        };
        let after = first_after(&filter, after);
        Reply::FromStore(Lookup::KeptAnswers(Box::new(AnswersPageLookup {
            changes: self.answers.unfolded.behind(after),
            filter,
            rows_max: limit.clamp(1, limits::PAGE_ROWS_MAX),
            after,
            now: self.now.wall,
        })))
    }

    pub(in crate::engine) fn one_kept_answer(&self, prefix: KeyPrefix) -> Reply {
        let filter = KeptAnswerFilter {
            key: Some(prefix.clone()),
            ..KeptAnswerFilter::default()
        };
        Reply::FromStore(Lookup::KeptAnswer(Box::new(AnswerLookup {
            changes: self.answers.unfolded.behind(first_after(&filter, None)),
            prefix,
            now: self.now.wall,
        })))
    }

    pub(in crate::engine) fn cache_stats(&self) -> CacheStats {
        let counts = self.answers.counts;
        CacheStats {
            entries: self.answers.index.len() as u64,
            bytes: self.answers.index.bytes(),
            bytes_max: self.answers.index.bytes_max(),
            hits: counts.hits,
            misses: counts.misses,
            joined: counts.joined,
            kept: counts.kept,
            doubtful: counts.doubtful,
            evicted: counts.evicted,
        }
    }

    /// Whether all answers that are kept are durable, so that they may be shown while nothing can be
    /// written.
    pub(in crate::engine) fn are_answers_durable(&self) -> bool {
        self.answers.unfolded.last_kept() <= self.events.latest()
    }

    /// Sets the word that is a part of the keys of a module's answers, or removes it.
    pub(in crate::engine) fn salt_module(
        &mut self,
        name: ModuleName,
        salt: Option<&Salt>,
    ) -> Result<serde_json::Value, Refusal> {
        self.module_record(&name)?;
        let mut rights = self.modules.rights.get(&name).cloned().unwrap_or_default();
        let salt = salt.map(|salt| salt.as_str().to_owned());
        let answer = serde_json::json!({ "salt": salt });
        if rights.salt != salt {
            rights.salt = salt;
            let rights = Changed {
                value: rights,
                event: None,
            };
            self.module_changed(
                name,
                ModuleChange {
                    rights: Some(rights),
                    ..ModuleChange::default()
                },
            );
        }
        Ok(answer)
    }

    /// Why a task was a hit or a miss. What is kept is compared by the asker's own thread.
    pub(in crate::engine) fn cache_why(&self, id: TaskId) -> Reply {
        let found = match self.facts.known(&id) {
            Some(Known::Open(task)) => return self.cache_why_open(id, task),
            Some(Known::Closing(task, ended)) => Some((self.facts.body(task), ended.clone())),
            Some(Known::Ended(stored)) => Some((stored.body.clone(), stored.ended.clone())),
            None => match self.facts.ended_in_view(&id) {
                Ok(stored) => stored.map(|stored| (stored.body, stored.ended)),
                Err(error) => return Reply::Refused(error.into()),
            },
        };
        match found {
            Some((body, ended)) => self.cache_why_ended(id, &body, &ended),
            None => Reply::Refused(unknown_task(&id)),
        }
    }

    fn cache_why_open(&self, id: TaskId, task: TaskKey) -> Reply {
        let body = self.facts.body(task);
        let last = self.facts.live(task).last.as_deref();
        let looked_up = last.filter(|last| last.n > 0).map(|last| last.sent);
        let outcome = match self.core.explain(task) {
            Some(Explanation::Joined { of: Some(of) }) => {
                let of = &self.facts.body(of).id;
                Some((
                    CacheOutcome::Joined,
                    format!("an equal task, `{of}`, is at work, and its answer will be shared"),
                ))
            }
            Some(Explanation::Joined { of: None }) => {
                Some((CacheOutcome::NotLookedUp, "an answer is looked for".into()))
            }
            Some(Explanation::Blocked { .. } | Explanation::Delayed { tries: 0, .. }) => Some((
                CacheOutcome::NotLookedUp,
                "an answer is looked for when its dependencies and its time are met".into(),
            )),
            Some(
                Explanation::Delayed { .. }
                | Explanation::Ready(_)
                | Explanation::Assigned { .. }
                | Explanation::Ended(_),
            )
            | None => None,
        };
        match (may_be_looked_up(&body), outcome) {
            (Err(NotLookedUp(why)), _) => told(id, CacheOutcome::NotLookedUp, why),
            (Ok(()), Some((outcome, why))) => told(id, outcome, why),
            (Ok(()), None) => self.miss(id, &body, None, looked_up.unwrap_or(self.now.wall)),
        }
    }

    fn cache_why_ended(&self, id: TaskId, body: &TaskBody, ended: &Ended) -> Reply {
        if let Some(source) = ended.end.cached() {
            let from = &source.from;
            let age_s = source.age_s;
            return if source.joined {
                let why = format!("it shared the run of an equal task, `{from}`");
                told(id, CacheOutcome::Joined, why)
            } else {
                let why = format!("the kept answer of task `{from}` was given, {age_s} s old");
                told(id, CacheOutcome::Hit, why)
            };
        }
        if let Err(NotLookedUp(why)) = may_be_looked_up(body) {
            return told(id, CacheOutcome::NotLookedUp, why);
        }
        let has_run = ended.end.attempt.n > 0 || ended.end.last_sent.n > 0;
        if !has_run && ended.end.state != TaskState::Done {
            let state = ended.end.state.as_str();
            let why = format!("it was {state} before it ran, and an answer was of no use");
            return told(id, CacheOutcome::NotLookedUp, why);
        }
        let looked_up = ended.end.started.unwrap_or(ended.end.finished);
        self.miss(id, body, Some(ended), looked_up)
    }

    /// The task runs, or ran, because no answer of its key was kept.
    fn miss(&self, id: TaskId, body: &TaskBody, ended: Option<&Ended>, looked_up: Wall) -> Reply {
        let kept = ended
            .and_then(|ended| ended.end.extras.as_ref())
            .and_then(|extras| extras.kept.as_deref());
        let known = match kept {
            Some(terms) => Ok((terms.key, terms.parts.clone())),
            None => self
                .answer_key(body)
                .and_then(|AnswerKey { key, results }| {
                    let make = |module: &ModulePart<'_>| key::parts(module, body, &results);
                    let parts = self.with_module_part(&body.module, body.pin.as_deref(), make)?;
                    Ok((key, parts))
                }),
        };
        let (key, parts) = match known {
            Ok(known) => known,
            Err(doubt) => {
                let why = format!("no answer is looked for, because its key is in doubt: {doubt}");
                return told(id, CacheOutcome::NotLookedUp, why);
            }
        };
        Reply::FromStore(Lookup::Miss(Box::new(MissLookup {
            task: id,
            module: body.module.clone(),
            key,
            parts,
            looked_up,
            former_expires: kept.and_then(|terms| terms.former_expires),
            changes: self.answers.unfolded.behind(None),
            own_change: self.answers.unfolded.of(&key),
        })))
    }

    /// Keeps these answers no longer, because an operator wants it.
    pub(in crate::engine) fn drop_answers_by_key(&mut self, keys: Vec<Hash>) -> serde_json::Value {
        let dropped = self.drop_answers(keys);
        serde_json::json!({ "dropped": dropped })
    }
}

/// Whether the document of a task lets a kept answer be looked for.
fn may_be_looked_up(body: &TaskBody) -> Result<(), NotLookedUp> {
    let no = |why: &str| Err(NotLookedUp(why.to_owned()));
    match body.cache().map(|request| request.mode) {
        None => no("its document does not ask for kept answers: it has no `cache`"),
        Some(CacheMode::Off) => no("its document wants no kept answer: its `cache` is off"),
        Some(CacheMode::Refresh) => {
            no("its `cache` has the mode `refresh`: it runs, whatever is kept")
        }
        Some(CacheMode::Use) => Ok(()),
    }
}

fn told(task: TaskId, outcome: CacheOutcome, why: String) -> Reply {
    Reply::Answer(QueryAnswer::CacheReason(Box::new(CacheReason {
        task,
        outcome,
        why,
        key: None,
        nearest: None,
        differs: Vec::new(),
    })))
}

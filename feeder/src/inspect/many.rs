//! Changes many tasks at once: those that are named, or all of a list. They go to the master in
//! parts, so that no turn of the master is long, and what was left as it was is told.

use super::listing::{ListFilter, ListPages, TaskListFilter};
use crate::client::{Client, ClientError, read_answer};
use crate::error::CommandError;
use crate::exit;
use crate::output::Printer;
use crate::output::text::thousands;
use serde::Deserialize;
use serde_json::json;
use taskmaster_console::lines::tell;
use taskmaster_protocol::{JobName, Json, RefusalCode, TaskId, TaskState, TaskView};

/// Tasks that one message names at the most.
const TASKS_PER_MESSAGE: usize = 1_000;

/// Tasks that were left as they were and are told one by one. The others are counted.
const TOLD_MAX: usize = 20;

/// What is done to the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ManyAction {
    Cancel,
    Retry,
}

impl ManyAction {
    /// The states of the tasks to which this can be done.
    fn states(self) -> &'static [TaskState] {
        match self {
            ManyAction::Cancel => &[
                TaskState::Blocked,
                TaskState::Delayed,
                TaskState::Ready,
                TaskState::Assigned,
            ],
            ManyAction::Retry => &[TaskState::Failed, TaskState::Cancelled],
        }
    }

    /// As the option stands in a sentence.
    fn name(self) -> &'static str {
        match self {
            ManyAction::Cancel => "cancel",
            ManyAction::Retry => "retry",
        }
    }

    /// What the master calls the tasks that it has changed.
    fn outcome(self) -> &'static str {
        match self {
            ManyAction::Cancel => "cancelled",
            ManyAction::Retry => "reopened",
        }
    }

    async fn request(self, client: &mut Client, ids: Vec<TaskId>) -> Result<Json, ClientError> {
        match self {
            ManyAction::Cancel => client.cancel(ids, None).await,
            ManyAction::Retry => client.retry(ids).await,
        }
    }
}

/// The tasks that were chosen on the command line: by their ids, or by what they have in common.
pub(super) struct ChosenTasks {
    pub(super) ids: Vec<TaskId>,
    pub(super) job: Option<JobName>,
    pub(super) state: Option<TaskState>,
}

/// Does something to the chosen tasks, and gives the exit code.
pub(super) async fn change(
    client: &mut Client,
    action: ManyAction,
    chosen: ChosenTasks,
    printer: &Printer,
) -> Result<u8, CommandError> {
    let ChosenTasks { ids, job, state } = chosen;
    if !ids.is_empty() {
        return named(client, action, ids, printer).await;
    }
    let state = match (action, state, &job) {
        // The master cancels a whole job by itself.
        (ManyAction::Cancel, None, Some(_)) => {
            printer.confirm(&client.cancel(ids, job).await?)?;
            return Ok(exit::OK);
        }
        (ManyAction::Retry, None, _) => Some(TaskState::Failed),
        (ManyAction::Cancel | ManyAction::Retry, state, _) => state,
    };
    let filter = TaskListFilter {
        job,
        state,
        module: None,
    };
    listed(client, action, filter, printer).await
}

/// Does something to the tasks of `ids`. Where one of a part cannot be changed, nothing of that part
/// is: the list is wrong, most probably.
async fn named(
    client: &mut Client,
    action: ManyAction,
    ids: Vec<TaskId>,
    printer: &Printer,
) -> Result<u8, CommandError> {
    let mut changed = 0;
    for part in ids.chunks(TASKS_PER_MESSAGE) {
        let answer = action.request(client, part.to_vec()).await;
        changed += match answer {
            Ok(answer) => count(&answer)?,
            Err(error) => {
                if changed > 0 {
                    let done = thousands(changed);
                    tell(format_args!(
                        "{} before the error: {done}",
                        action.outcome()
                    ));
                }
                return Err(error.into());
            }
        };
    }
    confirm(action, changed, printer)?;
    Ok(exit::OK)
}

/// Does something to every task of a list. A task that has changed meanwhile is left as it is.
async fn listed(
    client: &mut Client,
    action: ManyAction,
    filter: TaskListFilter,
    printer: &Printer,
) -> Result<u8, CommandError> {
    let states: Vec<&str> = action.states().iter().map(|state| state.as_str()).collect();
    if let Some(state) = filter
        .state
        .filter(|state| !action.states().contains(state))
    {
        return Err(CommandError::Usage(format!(
            "--state {}: `tasks {}` is for tasks that are {}",
            state.as_str(),
            action.name(),
            states.join(", ")
        )));
    }
    let mut work = ListedWork {
        action,
        changed: 0,
        left: 0,
    };
    let mut pages = ListPages::new(ListFilter::Tasks(filter));
    while let Some(rows) = pages.next(client, TASKS_PER_MESSAGE).await? {
        let ids = rows.iter().map(|row| Ok(read_answer::<TaskView>(row)?.id));
        let ids: Vec<TaskId> = ids.collect::<Result<_, ClientError>>()?;
        work.change(client, ids).await?;
    }
    if work.left > TOLD_MAX {
        let more = thousands((work.left - TOLD_MAX) as u64);
        tell(format_args!("and {more} more were left as they are"));
    }
    let changed = thousands(work.changed);
    tell(format_args!("{}: {changed}", action.outcome()));
    confirm(action, work.changed, printer)?;
    Ok(exit::OK)
}

/// How far the tasks of a list are changed.
struct ListedWork {
    action: ManyAction,
    changed: u64,
    /// Tasks that were left as they were.
    left: usize,
}

impl ListedWork {
    /// Changes those of `ids` that can be. The master refuses a part as a whole, so it is halved
    /// until the tasks are found that cannot.
    async fn change(&mut self, client: &mut Client, ids: Vec<TaskId>) -> Result<(), CommandError> {
        let mut parts = vec![ids];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.action.request(client, part.clone()).await {
                Ok(answer) => self.changed += count(&answer)?,
                Err(ClientError::Refused(refusal)) if is_of_one_task(refusal.code) => {
                    if part.len() > 1 {
                        let rest = part.split_off(part.len() / 2);
                        parts.extend([rest, part]);
                    } else {
                        self.left += 1;
                        if self.left <= TOLD_MAX {
                            tell(format_args!("left as it is: {refusal}"));
                        }
                    }
                }
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }
}

/// Whether a refusal is about one task of many.
fn is_of_one_task(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::WrongState | RefusalCode::UnknownTask)
}

fn count(answer: &Json) -> Result<u64, ClientError> {
    #[derive(Deserialize)]
    struct Changed {
        #[serde(alias = "cancelled", alias = "reopened")]
        count: u64,
    }
    Ok(read_answer::<Changed>(answer)?.count)
}

fn confirm(action: ManyAction, changed: u64, printer: &Printer) -> Result<(), CommandError> {
    printer.confirm(&Json::of(&json!({ action.outcome(): changed })))
}

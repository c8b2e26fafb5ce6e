//! Lists of tasks as the master gives them: page by page.

use crate::client::{Client, ClientError};
use taskmaster_protocol::message::{Page, Query};
use taskmaster_protocol::{JobName, Json, ModuleName, TaskState, limits};

/// Which tasks a list has: those that match all that is given.
#[derive(Debug, Clone, Default)]
pub(super) struct TaskListFilter {
    pub(super) job: Option<JobName>,
    pub(super) state: Option<TaskState>,
    pub(super) module: Option<ModuleName>,
}

/// The pages of a list that are not read yet.
pub(super) struct TaskPages {
    filter: TaskListFilter,
    /// Where the next page begins; `None` before the first.
    after: Option<String>,
    is_over: bool,
}

/// What follows behind the rows that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestOfList {
    Nothing,
    /// At least one more row.
    More,
    /// The master has looked at many tasks and found none that belongs here; there are others.
    Unknown,
}

impl TaskPages {
    /// From the beginning of the list.
    pub(super) fn new(filter: TaskListFilter) -> TaskPages {
        TaskPages {
            filter,
            after: None,
            is_over: false,
        }
    }

    /// The next page, of at most `limit` rows; it may be empty. `None` behind the last.
    pub(super) async fn next(
        &mut self,
        client: &mut Client,
        limit: usize,
    ) -> Result<Option<Vec<Json>>, ClientError> {
        if self.is_over {
            return Ok(None);
        }
        let query = Query::Tasks {
            job: self.filter.job.clone(),
            state: self.filter.state,
            module: self.filter.module.clone(),
            limit: limit.min(limits::PAGE_ROWS_MAX),
            after: self.after.take(),
        };
        let page: Page<Json> = client.ask(query).await?;
        self.is_over = page.next.is_none();
        self.after = page.next;
        Ok(Some(page.rows))
    }

    /// Looks behind what was read.
    pub(super) async fn rest(&mut self, client: &mut Client) -> Result<RestOfList, ClientError> {
        let Some(rows) = self.next(client, 1).await? else {
            return Ok(RestOfList::Nothing);
        };
        Ok(match (rows.is_empty(), self.is_over) {
            (false, _) => RestOfList::More,
            (true, true) => RestOfList::Nothing,
            (true, false) => RestOfList::Unknown,
        })
    }
}

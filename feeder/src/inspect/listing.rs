//! Lists of tasks and of kept answers as the master gives them: page by page.

use crate::client::{Client, ClientError};
use taskmaster_protocol::message::{KeptAnswerFilter, KeptAnswersPageQuery, Page, Query};
use taskmaster_protocol::{JobName, Json, ModuleName, TaskState, limits};

/// Which tasks a list has: those that match all that is given.
#[derive(Debug, Clone, Default)]
pub(super) struct TaskListFilter {
    pub(super) job: Option<JobName>,
    pub(super) state: Option<TaskState>,
    pub(super) module: Option<ModuleName>,
}

/// What a list is of.
#[derive(Debug, Clone)]
pub(super) enum ListFilter {
    Tasks(TaskListFilter),
    KeptAnswers(KeptAnswerFilter),
}

impl ListFilter {
    /// The question for the page that begins at `after`.
    fn query(&self, limit: usize, after: Option<String>) -> Query {
        match self {
            ListFilter::Tasks(filter) => Query::Tasks {
                job: filter.job.clone(),
                state: filter.state,
                module: filter.module.clone(),
                limit,
                after,
            },
            ListFilter::KeptAnswers(filter) => Query::KeptAnswers(KeptAnswersPageQuery {
                filter: filter.clone(),
                limit,
                after,
            }),
        }
    }
}

/// The pages of a list that are not read yet.
pub(super) struct ListPages {
    filter: ListFilter,
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

impl ListPages {
    /// From the beginning of the list.
    pub(super) fn new(filter: ListFilter) -> ListPages {
        ListPages {
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
        let limit = limit.min(limits::PAGE_ROWS_MAX);
        let query = self.filter.query(limit, self.after.take());
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

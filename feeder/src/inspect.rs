//! Commands that ask and change: `tasks`, `jobs`, `modules`, `runners`, `cache`. Each has a file of its own:
//! a question, an answer, a table.

pub mod cache;
pub mod jobs;
pub mod modules;
pub mod runners;
pub mod tasks;

mod listing;
mod many;
mod rows;

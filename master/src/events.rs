//! Events for those who watch: the durable ones by seq, from memory or from the journal; the live ones as they come.
//!
//! (Being written; this is the interface that the gateway uses.)
//!
//! impl EventFeed {
//!     pub fn latest(&self) -> u64;                       // seq of the last durable event
//!     pub async fn after(&self, seq: u64) -> Result<Vec<Logged>, Pruned>; // waits for at least one with a seq > `seq`; in order, dense; at most ~1,000
//!     pub fn live(&self) -> tokio::sync::broadcast::Receiver<Arc<EventView>>;   // task:ready, assigned, started, progress, partial, log, module:ready, runner:draining
//! }
//! pub struct Pruned { pub first: u64 }                   // durable events below `first` are no longer kept
//! impl Logged {                                          // cheap to clone (Arc inside)
//!     pub fn seq(&self) -> u64;
//!     pub fn kind(&self) -> EventKind;
//!     pub fn job(&self) -> Option<&JobName>;
//!     pub fn task(&self) -> Option<&TaskId>;
//!     pub fn view(&self) -> EventView;
//!     pub fn finished(&self) -> Option<TaskView>;        // of task:done, failed, cancelled, skipped
//!     pub fn job_run(&self) -> Option<u32>;              // of job:done
//! }

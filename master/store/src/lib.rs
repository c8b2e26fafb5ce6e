//! What a master keeps on disk, and the form in which it is written.
//!
//! [`kv`] is the seam to the disk: an ordered map of bytes. On top of it, [`journal`] is the durable
//! series of commits, and [`view`] holds what is folded from the commits and read by key. [`record`],
//! [`body`] and [`packed`] are the types that journal and view store, and [`codec`] is their form on
//! disk. Nothing in this crate decides what a task does.

pub mod body;
pub mod cache;
pub mod cache_entry;
pub mod codec;
pub mod disk;
pub mod journal;
pub mod kv;
pub mod packed;
pub mod record;
pub mod references;
pub mod view;

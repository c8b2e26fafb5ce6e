//! What a master keeps, and how it is written.
//!
//! [`kv`] is the seam to the disk: an ordered map of bytes. Over it, [`journal`] is the durable
//! series of commits, and [`view`] holds what is folded from them, read by key. [`record`],
//! [`body`] and [`packed`] are what both are made of, [`codec`] is their form on disk. Nothing here decides.

pub mod body;
pub mod codec;
pub mod disk;
pub mod journal;
pub mod kv;
pub mod packed;
pub mod record;
pub mod references;
pub mod view;

//! Whether the disk has space, and whether the store on it can be read. The engine and the commit writer decide what follows from that.

/// Whether the disk takes what is written, and gives back what was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DiskSpace {
    /// There is enough space, so nothing is refused.
    #[default]
    Ample,
    /// There is little space: requests that make the store grow are refused with this reason, and
    /// everything else goes on.
    Low(String),
    /// The store on the disk is damaged, or can be folded no more: requests that make the store grow
    /// are refused with this reason, because nobody knows whether the next start can read what they
    /// add. Everything else goes on as far as it can be read.
    Damaged(String),
    /// Nothing can be written: all changes are refused with this reason, and results stay with their
    /// runners.
    Full(String),
}

impl DiskSpace {
    /// Why new tasks are refused; `None` while they are accepted.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            DiskSpace::Ample => None,
            DiskSpace::Low(why) | DiskSpace::Damaged(why) | DiskSpace::Full(why) => Some(why),
        }
    }
}

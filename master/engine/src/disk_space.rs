//! Whether the disk has space. The engine and the commit writer decide what follows from that.

/// Whether the disk has space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DiskSpace {
    /// There is enough space, so nothing is refused.
    #[default]
    Ample,
    /// There is little space: requests that make the store grow are refused with this reason, and
    /// everything else goes on.
    Low(String),
    /// Nothing can be written: all changes are refused with this reason, and results stay with their
    /// runners.
    Full(String),
}

impl DiskSpace {
    /// Why new tasks are refused; `None` while they are accepted.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            DiskSpace::Ample => None,
            DiskSpace::Low(why) | DiskSpace::Full(why) => Some(why),
        }
    }
}

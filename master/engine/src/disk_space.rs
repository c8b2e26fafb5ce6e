//! Whether the disk has space, as a state: what the master does about it is the engine's and the
//! writer's to decide.

/// Whether the disk has space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DiskSpace {
    /// All is taken.
    #[default]
    Ample,
    /// What makes the store grow is refused, for this reason; everything else goes on.
    Low(String),
    /// Nothing can be written, for this reason: changes are refused, results stay with their
    /// runners.
    Full(String),
}

impl DiskSpace {
    /// Why adds are refused; `None`: they are taken.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            DiskSpace::Ample => None,
            DiskSpace::Low(why) | DiskSpace::Full(why) => Some(why),
        }
    }
}

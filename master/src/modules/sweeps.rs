//! What became of the last look through the folder, for those who ask whether changes there count.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The folder is looked through several times a second. When nothing was heard of that for so long,
/// its file system does not answer, or one file takes very long.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The last look.
#[derive(Debug)]
struct LastSweep {
    at: Instant,
    /// Why the folder could not be read, if so.
    error: Option<String>,
}

/// What became of the last look. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Sweeps(Arc<Mutex<LastSweep>>);

impl Default for Sweeps {
    fn default() -> Sweeps {
        Sweeps(Arc::new(Mutex::new(LastSweep {
            at: Instant::now(),
            error: None,
        })))
    }
}

impl Sweeps {
    fn lock(&self) -> MutexGuard<'_, LastSweep> {
        // Nothing between lock and unlock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look is over. Returns whether its error, or that it has none, is news.
    pub(super) fn ended(&self, error: Option<String>) -> bool {
        let mut last = self.lock();
        last.at = Instant::now();
        let is_news = last.error != error;
        last.error = error;
        is_news
    }

    /// Whether the last look could read the folder.
    pub(super) fn is_readable(&self) -> bool {
        self.lock().error.is_none()
    }

    /// Why changes in the folder do not count, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble_after(SILENCE_MAX)
    }

    fn trouble_after(&self, silence_max: Duration) -> Option<String> {
        let last = self.lock();
        if let Some(error) = &last.error {
            return Some(format!("it cannot be read: {error}"));
        }
        let silence = last.at.elapsed();
        (silence > silence_max).then(|| {
            let seconds = silence.as_secs();
            format!(
                "it was not looked through for {seconds} s; its disk does not answer, or one of \
                 its files takes very long to check"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_folder_and_a_long_silence_are_trouble_until_they_are_over() {
        let sweeps = Sweeps::default();
        assert_eq!(sweeps.trouble(), None);
        assert!(sweeps.ended(Some("Permission denied".into())));
        assert!(!sweeps.ended(Some("Permission denied".into())));
        let trouble = sweeps.trouble().unwrap();
        assert!(trouble.contains("Permission denied"), "{trouble}");
        assert!(sweeps.ended(None) && sweeps.is_readable());
        assert_eq!(sweeps.trouble(), None);
        std::thread::sleep(Duration::from_millis(2));
        let trouble = sweeps.trouble_after(Duration::from_millis(1)).unwrap();
        assert!(trouble.contains("not looked through"), "{trouble}");
    }
}

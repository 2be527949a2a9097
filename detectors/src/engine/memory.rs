//! How much memory the windows of the process may take: of all tenants and jobs together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How much that may be, about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// All together.
    pub(super) process_bytes: usize,
    /// One tenant and job, whatever the others take.
    pub(super) own_bytes: usize,
}

/// Ten million short entries of a million keys fit, and the process stays below 1 GiB.
impl Default for Bounds {
    fn default() -> Self {
        Self {
            process_bytes: 920 << 20,
            own_bytes: 32 << 20,
        }
    }
}

/// What all shares hold.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// What the windows of one tenant and job hold of it.
#[derive(Debug, Default)]
pub(super) struct Share(usize);

impl Share {
    /// Says how much it is now.
    pub(super) fn set(&mut self, bytes: usize) {
        HELD.fetch_add(bytes.wrapping_sub(self.0), Ordering::Relaxed);
        self.0 = bytes;
    }

    /// Whether all together are beyond a bound, and it holds more than is its own.
    pub(super) fn is_beyond(&self, bounds: Bounds) -> bool {
        self.0 > bounds.own_bytes && HELD.load(Ordering::Relaxed) > bounds.process_bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_holds_more_than_its_own_is_beyond_and_what_is_dropped_is_free() {
        let bounds = Bounds::default();
        let (mut large, mut small) = (Share::default(), Share::default());
        small.set(bounds.own_bytes);
        large.set(bounds.process_bytes);
        assert!(large.is_beyond(bounds));
        assert!(!small.is_beyond(bounds), "its own");
        drop(large);
        small.set(bounds.process_bytes / 2);
        assert!(!small.is_beyond(bounds), "there is room");
    }
}

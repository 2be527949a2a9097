//! How wide the slices of one application are cut, so that a slice stays under so many pages.
//!
//! Learned while reading and kept in memory only: after a restart it is learned again, which costs
//! one unfinished walk per halving.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::TimeDelta;
use exfilwatch_model::Window;

use super::span::SPAN_LONGEST;

/// Pages of one slice; where there are more, the slice is cut in halves.
pub const SLICE_PAGES_MAX: usize = 50;
/// Narrowest slice.
const NARROWEST: TimeDelta = TimeDelta::seconds(1);

/// The width of the next slice.
#[derive(Debug)]
pub(super) struct Pace(AtomicI64);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicI64::new(SPAN_LONGEST.num_seconds()))
    }
}

impl Pace {
    /// How wide to cut.
    pub(super) fn width(&self) -> TimeDelta {
        TimeDelta::seconds(self.0.load(Ordering::Relaxed))
    }

    /// The slice had more pages than a slice may. Whether there is a narrower one.
    pub(super) fn too_wide(&self, slice: Window) -> bool {
        let half = (slice.length() / 2).max(NARROWEST);
        if half >= slice.length() {
            return false;
        }
        self.0
            .fetch_min(half.num_seconds().max(1), Ordering::Relaxed);
        true
    }

    /// The slice was read to its end. Few pages in a slice of full width: the next may be wider.
    pub(super) fn read(&self, slice: Window, pages: usize) {
        let width = self.width();
        if slice.length() >= width && pages * 4 <= SLICE_PAGES_MAX {
            let wider = (width * 2).min(SPAN_LONGEST);
            self.0.store(wider.num_seconds(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};

    fn window(seconds: i64) -> Window {
        let from = DateTime::<Utc>::UNIX_EPOCH;
        Window::new(from, from + TimeDelta::seconds(seconds)).unwrap()
    }

    #[test]
    fn the_width_is_halved_down_to_a_second_and_grows_again_when_it_is_quiet() {
        let pace = Pace::default();
        assert!(pace.too_wide(window(3_600)));
        assert_eq!(pace.width(), TimeDelta::minutes(30));
        let mut halvings = 1;
        while pace.too_wide(window(pace.width().num_seconds())) {
            halvings += 1;
            assert!(halvings < 20);
        }
        assert_eq!(pace.width(), TimeDelta::seconds(1));
        pace.read(window(1), SLICE_PAGES_MAX / 2);
        assert_eq!(
            pace.width(),
            TimeDelta::seconds(1),
            "half full is not quiet"
        );
        for _ in 0..20 {
            pace.read(window(pace.width().num_seconds()), 1);
        }
        assert_eq!(pace.width(), SPAN_LONGEST);
        assert!(pace.too_wide(window(3_600)));
        pace.read(window(60), 1);
        assert_eq!(
            pace.width(),
            TimeDelta::minutes(30),
            "a short rest of a window says nothing about the width"
        );
    }
}

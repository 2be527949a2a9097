//! Native detectors: what rules cannot say (baselines, chains). One file each in this folder, and
//! one line in [`REGISTRY`].
//!
//! A native detector is a [`Detector`] like the two that run rules; it has a Sigma id of its own.

use exfilwatch_model::{JobId, TenantId};

use crate::contract::{Detector, Interest};

/// A native detector: what it wants, and how it is made for a tenant and job.
pub(crate) struct Native {
    pub(crate) interests: fn() -> Vec<Interest>,
    pub(crate) build: fn(&TenantId, &JobId) -> Box<dyn Detector>,
}

/// All native detectors. None of the detections so far needs one.
pub(crate) const REGISTRY: &[Native] = &[];

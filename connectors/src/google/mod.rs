//! The Google Workspace Reports API.

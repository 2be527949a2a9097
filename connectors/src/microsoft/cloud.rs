//! The hosts of each Microsoft cloud ("Office 365 Management Activity API reference", 2026-06).

use crate::options::Cloud;

/// All clouds.
pub const CLOUDS: [Cloud; 4] = [Cloud::Commercial, Cloud::Gcc, Cloud::GccHigh, Cloud::Dod];

/// Origin of the Management Activity API; also the audience of its tokens.
pub fn api_root(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Commercial => "https://manage.office.com",
        Cloud::Gcc => "https://manage-gcc.office.com",
        Cloud::GccHigh => "https://manage.office365.us",
        Cloud::Dod => "https://manage.protection.apps.mil",
    }
}

/// Origin of the token endpoint.
pub fn login_root(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Commercial | Cloud::Gcc => "https://login.microsoftonline.com",
        Cloud::GccHigh | Cloud::Dod => "https://login.microsoftonline.us",
    }
}

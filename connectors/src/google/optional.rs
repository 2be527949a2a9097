//! The Alert Center where nobody named it: read where the scope is delegated and the subject may, and
//! left alone where not. Whether that is so is asked seldom, and remembered by this process only.

use chrono::{DateTime, TimeDelta, Utc};
use http::Method;
use tokio::sync::Mutex;

use super::alerts::AlertCenter;
use crate::kernel::client::Ask;
use crate::{FetchError, Withheld};

/// Time between two questions while it is refused.
const ASK_EVERY: TimeDelta = TimeDelta::minutes(15);

/// What Google said last.
#[derive(Debug, Default)]
enum Said {
    #[default]
    Nothing,
    Granted,
    Refused(DateTime<Utc>, Withheld),
}

/// A stream that is read only where it is granted.
#[derive(Debug, Default)]
pub(super) struct Optional(Mutex<Said>);

impl Optional {
    /// Why it is not read. What passes is an error: it says nothing of the grant.
    pub(super) async fn withheld(
        &self,
        alerts: &AlertCenter,
        now: DateTime<Utc>,
    ) -> Result<Option<Withheld>, FetchError> {
        let mut said = self.0.lock().await;
        match &*said {
            Said::Granted => return Ok(None),
            Said::Refused(at, withheld) if now - *at < ASK_EVERY => {
                return Ok(Some(withheld.clone()));
            }
            Said::Refused(..) | Said::Nothing => {}
        }
        let Some(window) = exfilwatch_model::Window::new(now - TimeDelta::seconds(10), now) else {
            return Ok(None);
        };
        let ask = Ask {
            method: Method::GET,
            url: alerts.made(window),
            what: "alerts".to_owned(),
            patient: false,
        };
        match alerts.client.call(&ask).await.map_err(|r| r.error) {
            Ok(_) => {
                *said = Said::Granted;
                Ok(None)
            }
            Err(
                FetchError::Auth { what, help }
                | FetchError::Permission { what, help }
                | FetchError::AuditingDisabled { what, help }
                | FetchError::Hold { what, help },
            ) => {
                let withheld = Withheld { what, help };
                *said = Said::Refused(now, withheld.clone());
                Ok(Some(withheld))
            }
            Err(error) => Err(error),
        }
    }
}

//! The keys `above` and `first_seen`: what is measured against the past.

use std::sync::Arc;

use yaml_serde::Value;

use super::build::span_ms;
use super::error::{Place, RuleError};
use super::rule::{Above, FirstSeen, Usual};
use super::schema::{AboveKey, FirstSeenKey};
use crate::engine::DAY_MS;
use crate::engine::sigma::Matcher;

/// How many days before count, where the rule does not say.
const DAYS: u32 = 30;
/// Most days before.
const DAYS_MAX: u32 = 90;
/// How long nothing is said at first, where the rule does not say.
const LEARN: &str = "7d";
/// Most fields whose values must be new together.
const FIELDS_MAX: usize = 4;

pub(super) fn above(place: Place<'_>, key: &AboveKey) -> Result<Above, RuleError> {
    let usual = match (key.own_maximum, key.deviations) {
        (Some(times @ 1..), None) => Usual::Greatest { times },
        (None, Some(times @ 1..)) => Usual::Deviations { times },
        _ => {
            let help = "write { own_maximum: 3 } or { deviations: 3 }";
            return Err(place.error("above", "it says not above what", help));
        }
    };
    Ok(Above {
        usual,
        days: days(place, "above.days", key.days)?,
        learn_ms: learn(place, "above.learn", key.learn.as_deref())?,
    })
}

pub(super) fn first_seen(place: Place<'_>, key: &FirstSeenKey) -> Result<FirstSeen, RuleError> {
    if key.fields.is_empty() || key.fields.len() > FIELDS_MAX {
        let help = format!("name 1 to {FIELDS_MAX} fields");
        return Err(place.error("first_seen.fields", "they say what must be new", help));
    }
    let days = days(place, "first_seen.days", key.days)?;
    Ok(FirstSeen {
        fields: key.fields.clone(),
        days,
        learn_ms: learn(place, "first_seen.learn", key.learn.as_deref())?,
        fresh_ms: fresh(place, key.fresh.as_deref(), days)?,
        told: key
            .told
            .as_ref()
            .map(|told| selection(place, told))
            .transpose()?,
    })
}

/// What is new for so long must have been looked for over a day more, since of a day the first and the last
/// event are known.
fn fresh(place: Place<'_>, fresh: Option<&str>, days: u32) -> Result<i64, RuleError> {
    let key = "first_seen.fresh";
    let fresh_ms = fresh.map_or(Ok(0), |text| span_ms(place, key, text))?;
    if fresh_ms > (i64::from(days) - 1) * DAY_MS {
        let help = "name more days, or a shorter time";
        return Err(place.error(key, "it is not a day shorter than days", help));
    }
    Ok(fresh_ms)
}

fn selection(place: Place<'_>, told: &Value) -> Result<Arc<Matcher>, RuleError> {
    let help = "write a selection: a map, or a list of maps";
    let matcher = Matcher::of_selection(told);
    matcher
        .map(Arc::new)
        .map_err(|problem| place.error("first_seen.told", problem, help))
}

fn days(place: Place<'_>, key: &'static str, days: Option<u32>) -> Result<u32, RuleError> {
    match days.unwrap_or(DAYS) {
        days @ 1..=DAYS_MAX => Ok(days),
        days => {
            let help = format!("write 1 to {DAYS_MAX}");
            Err(place.error(key, format!("{days} days are not remembered"), help))
        }
    }
}

fn learn(place: Place<'_>, key: &'static str, learn: Option<&str>) -> Result<i64, RuleError> {
    span_ms(place, key, learn.unwrap_or(LEARN))
}

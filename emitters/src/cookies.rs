//! The few cookies of one receiver: a balancer's, that keeps a channel at one indexer.
//!
//! One client talks to one origin, so domain and path say nothing. They are kept from the first answer
//! on and sent only once the receiver turns out to acknowledge: else they would only send everything to
//! one indexer. The number is bounded: a receiver that sets ever new names must not grow our memory or
//! the requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;
use reqwest::cookie::CookieStore;
use url::Url;

/// Most cookies kept; further names are ignored.
const NAMES_MAX: usize = 16;
/// Largest cookie kept, name and value, in bytes.
const COOKIE_BYTES_MAX: usize = 4_096;

/// Cookies by name.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    known: Mutex<BTreeMap<String, String>>,
    are_sent: AtomicBool,
}

impl Cookies {
    /// They go along from now on.
    pub(crate) fn send(&self) {
        self.are_sent.store(true, Ordering::Relaxed);
    }

    fn take(&self, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let is_over = value.is_empty() || parts.any(|part| part.eq_ignore_ascii_case("max-age=0"));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if is_over {
            known.remove(name);
        } else if name.len() + value.len() <= COOKIE_BYTES_MAX
            && (known.len() < NAMES_MAX || known.contains_key(name))
        {
            known.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl CookieStore for Cookies {
    fn set_cookies(&self, headers: &mut dyn Iterator<Item = &HeaderValue>, _url: &Url) {
        for header in headers.filter_map(|header| header.to_str().ok()) {
            self.take(header);
        }
    }

    fn cookies(&self, _url: &Url) -> Option<HeaderValue> {
        if !self.are_sent.load(Ordering::Relaxed) {
            return None;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs: Vec<String> = known
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let header = HeaderValue::try_from(pairs.join("; ")).ok();
        header.filter(|_| !pairs.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_kept_and_what_is_over_goes() {
        let url: Url = "https://s.example".parse().unwrap();
        let jar = Cookies::default();
        assert_eq!(jar.cookies(&url), None);
        for number in 0..100 {
            jar.take(&format!("c{number:02}=v; Path=/; HttpOnly"));
        }
        jar.take(&format!("c00={}", "x".repeat(COOKIE_BYTES_MAX)));
        jar.take("c01=new");
        assert_eq!(jar.cookies(&url), None, "not yet");
        jar.send();
        let sent = jar.cookies(&url).unwrap();
        let sent = sent.to_str().unwrap();
        assert_eq!(sent.split("; ").count(), NAMES_MAX);
        assert!(sent.starts_with("c00=v; c01=new; c02=v"), "{sent}");
        for number in 0..NAMES_MAX {
            jar.take(&format!("c{number:02}=v; Max-Age=0"));
        }
        assert_eq!(jar.cookies(&url), None);
    }
}

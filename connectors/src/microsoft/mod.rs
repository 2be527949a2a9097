//! The Office 365 Management Activity API.

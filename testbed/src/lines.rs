//! An answer that goes on line by line, as tests read it.

use std::io;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A reader of such an answer.
pub struct Lines {
    body: Incoming,
    patience: Duration,
    rest: String,
}

impl Lines {
    /// Who reads it, and waits so long for the next line at most.
    pub fn of(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, rest: String::new() }
    }

    /// The next line; `None`: it has ended in order.
    ///
    /// # Errors
    /// It has ended otherwise, is no text, or nothing came in time.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.rest = rest;
                return Ok(Some(line));
            }
            let Some(frame) = tokio::time::timeout(self.patience, self.body.frame()).await? else { return Ok(None) };
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                self.rest.push_str(std::str::from_utf8(&data).map_err(io::Error::other)?);
            }
        }
    }
}

//! `parse_url`: the parts of a URL, as `java.net.URI` sees them.

use core::net::Ipv6Addr;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::DataType;

use super::Args;
use super::kernel::{Can, Kernel, Typed};
use super::pattern::{Patterns, java};
use crate::error::{QueryError, RunError};

/// `parse_url(url, part)` and `parse_url(url, 'QUERY', key)`; `try_parse_url` is NULL for what is no URL.
pub(super) fn build(name: &str, args: &Args) -> Result<Typed, QueryError> {
    let values = args.typed(&[DataType::Utf8, DataType::Utf8, DataType::Utf8], 2)?;
    let attempt = name == "try_parse_url";
    Ok(Kernel::over_arrays(
        name,
        "",
        values,
        DataType::Utf8,
        Can::Fail,
        move |args, rows| {
            let urls = args[0].as_string::<i32>();
            let parts = args[1].as_string::<i32>();
            let mut keys =
                Patterns::new(|key: &str| java("parse_url", &format!("(&|^){key}=([^&]*)")));
            let mut out = StringBuilder::new();
            for row in 0..rows {
                // With a key only the query is looked at, and else not even whether the rest is a URL.
                let none = args.len() == 3 && parts.value(row) != "QUERY";
                if args.iter().any(|a| a.is_null(row)) || none {
                    out.append_null();
                    continue;
                }
                let url = urls.value(row);
                let Some(uri) = Uri::parse(url) else {
                    if attempt {
                        out.append_null();
                        continue;
                    }
                    let message = format!(
                        "The url is invalid: {url}. Use `try_parse_url` to tolerate invalid URL and return NULL instead."
                    );
                    return Err(RunError::raise("INVALID_URL", message));
                };
                let part = uri.part(parts.value(row));
                match args.get(2) {
                    None => out.append_option(part),
                    Some(key) => {
                        let key = keys.get(key.as_string::<i32>().value(row))?;
                        let value = part.as_deref().and_then(|query| key.captures(query));
                        out.append_option(value.and_then(|found| found.get(2)).map(|v| v.as_str()));
                    }
                }
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Uri<'u> {
    scheme: Option<&'u str>,
    authority: Option<&'u str>,
    user: Option<&'u str>,
    host: Option<&'u str>,
    path: Option<&'u str>,
    query: Option<&'u str>,
    fragment: Option<&'u str>,
}

const MARK: &str = "-_.!~*'()";

fn other(c: char) -> bool {
    // What Java's isSpaceChar and isISOControl leave.
    c as u32 > 128 && !c.is_control() && !c.is_whitespace()
}

/// How far into `text` its characters are letters, digits, `more`, escapes or visible ones beyond ASCII; `None` where
/// an escape is malformed.
fn run(text: &str, more: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_ascii_alphanumeric() || more.contains(c) || other(c) {
            at += c.len_utf8();
        } else if c == '%' {
            let hex = text.as_bytes().get(at + 1..at + 3)?;
            if !hex.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            at += 3;
        } else {
            break;
        }
    }
    Some(at)
}

/// The text, if it is made of such characters.
fn all<'t>(text: &'t str, more: &str) -> Option<&'t str> {
    let more = format!("{MARK}{more}");
    (run(text, &more)? == text.len()).then_some(text)
}

const RESERVED: &str = ";/?:@&=+$,[]";

/// The text up to one of `stops`, and what follows.
fn until<'t>(text: &'t str, stops: &[char]) -> (&'t str, &'t str) {
    text.split_at(text.find(stops).unwrap_or(text.len()))
}

impl<'u> Uri<'u> {
    fn parse(text: &'u str) -> Option<Uri<'u>> {
        let mut uri = Uri::default();
        let (start, rest) = until(text, &['/', '?', '#', ':']);
        let rest = match rest.strip_prefix(':') {
            Some(rest) => {
                let good = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                if !start.starts_with(|c: char| c.is_ascii_alphabetic()) || !start.chars().all(good)
                {
                    return None;
                }
                uri.scheme = Some(start);
                match rest.starts_with('/') {
                    true => uri.hierarchical(rest)?,
                    false => {
                        let (opaque, rest) = until(rest, &['#']);
                        if opaque.is_empty() {
                            return None;
                        }
                        all(opaque, RESERVED)?;
                        rest
                    }
                }
            }
            None => uri.hierarchical(text)?,
        };
        match rest.strip_prefix('#') {
            Some(fragment) => uri.fragment = Some(all(fragment, RESERVED)?),
            None if !rest.is_empty() => return None,
            None => {}
        }
        Some(uri)
    }

    /// Authority, path and query; gives back what follows.
    fn hierarchical(&mut self, text: &'u str) -> Option<&'u str> {
        let mut rest = text;
        if let Some(after) = text.strip_prefix("//") {
            let (authority, after) = until(after, &['/', '?', '#']);
            match authority.is_empty() {
                false => self.authority(authority)?,
                // A path, query or fragment may follow an empty one.
                true if after.is_empty() => return None,
                true => {}
            }
            rest = after;
        }
        let (path, rest) = until(rest, &['?', '#']);
        self.path = Some(all(path, ":@&=+$,;/")?);
        let Some(rest) = rest.strip_prefix('?') else {
            return Some(rest);
        };
        let (query, rest) = until(rest, &['#']);
        self.query = Some(all(query, RESERVED)?);
        Some(rest)
    }

    fn authority(&mut self, text: &'u str) -> Option<()> {
        let allowed = format!("{MARK};:&=+$,@[]%");
        let server = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || other(c) || allowed.contains(c));
        let registered = || all(text, "$,;:@&=+").is_some();
        match server.then(|| server_parts(text)).flatten() {
            Some((user, host)) => (self.user, self.host) = (user, Some(host)),
            None if registered() => {}
            None => return None,
        }
        self.authority = Some(text);
        Some(())
    }

    fn part(&self, name: &str) -> Option<String> {
        let part = match name {
            "HOST" => self.host,
            "PATH" => self.path,
            "QUERY" => self.query,
            "REF" => self.fragment,
            "PROTOCOL" => self.scheme,
            "AUTHORITY" => self.authority,
            "USERINFO" => self.user,
            "FILE" => {
                return match (self.path, self.query) {
                    (path, Some(query)) => Some(format!("{}?{query}", path.unwrap_or("null"))),
                    (path, None) => path.map(str::to_string),
                };
            }
            _ => None,
        };
        part.map(str::to_string)
    }
}

/// The user and the host of `user@host:port`, if it is that.
fn server_parts(text: &str) -> Option<(Option<&str>, &str)> {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) => (Some(all(user, ";:&=+$,")?), rest),
        None => (None, text),
    };
    let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        let (address, scope) = match address.split_once('%') {
            Some((address, scope)) => (address, Some(scope)),
            None => (address, None),
        };
        let named = |s: &str| {
            !s.is_empty()
                && s.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
        };
        address.parse::<Ipv6Addr>().ok()?;
        if !scope.is_none_or(named) {
            return None;
        }
        (&rest[..rest.len() - port.len()], port)
    } else {
        let (host, _) = until(rest, &[':']);
        if !is_ipv4(host) && !is_host_name(host) {
            return None;
        }
        (host, &rest[host.len()..])
    };
    match port.strip_prefix(':') {
        None if !port.is_empty() => return None,
        Some(port)
            if !port.is_empty()
                && (!port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<i32>().is_err()) =>
        {
            return None;
        }
        _ => {}
    }
    Some((user, host))
}

fn is_ipv4(host: &str) -> bool {
    let parts: Vec<&str> = host.split('.').collect();
    let byte = |part: &&str| {
        part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok_and(|n| n < 256)
    };
    parts.len() == 4 && parts.iter().all(byte)
}

/// Labels of letters, digits and inner dashes, the last of which starts with a letter unless it is the only one.
fn is_host_name(host: &str) -> bool {
    let labels: Vec<&str> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
    let good = |label: &&str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let letter = |label: &&str| label.starts_with(|c: char| c.is_ascii_alphabetic());
    labels.iter().all(good) && (labels.len() == 1 || labels.last().is_some_and(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, part: &str, expected: Option<&str>) {
        let found = Uri::parse(url).and_then(|uri| uri.part(part));
        assert_eq!(found.as_deref(), expected, "{part} of {url}");
    }

    #[test]
    fn parts_are_found_as_they_are_written() {
        let url = "https://user:pw@ex.org:8080/a%20b?k=1&l#frag";
        check(url, "PROTOCOL", Some("https"));
        check(url, "HOST", Some("ex.org"));
        check(url, "AUTHORITY", Some("user:pw@ex.org:8080"));
        check(url, "USERINFO", Some("user:pw"));
        check(url, "PATH", Some("/a%20b"));
        check(url, "FILE", Some("/a%20b?k=1&l"));
        check(url, "REF", Some("frag"));
        check(url, "host", None);
        check("http://ex.org", "PATH", Some(""));
        check("ftp://[::1]:80/x", "HOST", Some("[::1]"));
        check("mailto:a@b.c", "PATH", None);
    }

    #[test]
    fn what_is_no_server_is_an_authority() {
        check("http://a_b.org/p", "HOST", None);
        check("http://a_b.org/p", "AUTHORITY", Some("a_b.org"));
        check("http://1.2.3/p", "HOST", None);
        check("http://1.2.3.4:5/p", "HOST", Some("1.2.3.4"));
        check("file:///etc/x", "PATH", Some("/etc/x"));
    }

    #[test]
    fn what_is_no_url_is_told() {
        for url in [
            "not a url",
            "http://",
            "1a:b",
            "http://h/%zz",
            "http://h/{x}",
            "http://h|x/",
            "a:",
        ] {
            assert_eq!(Uri::parse(url), None, "{url}");
        }
    }
}

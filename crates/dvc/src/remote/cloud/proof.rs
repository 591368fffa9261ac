//! Which MD5 goes with a request to an object store, and which comes back.

use super::base64;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, header};

/// The header of a body's MD5.
pub(super) const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// What a request to an object store is for.
#[derive(Debug, PartialEq, Eq)]
enum Purpose {
    /// Puts a whole object.
    Whole,
    /// Puts a part of one.
    Part,
    /// Begins an object of many parts.
    Begin,
    /// Makes an object of Azure's blocks.
    Commit,
    Other,
}

fn purpose(method: &Method, query: &str) -> Purpose {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let is = |pair: &str| query.split('&').any(|found| found == pair);
    match *method {
        Method::PUT if is("comp=blocklist") => Purpose::Commit,
        Method::PUT if has("partNumber") || is("comp=block") => Purpose::Part,
        Method::PUT if !has("comp") => Purpose::Whole,
        Method::POST if has("uploads") => Purpose::Begin,
        _ => Purpose::Other,
    }
}

/// Whether the request makes an object.
pub(super) fn makes(parts: &Parts) -> bool {
    matches!(purpose(&parts.method, parts.uri.query().unwrap_or_default()), Purpose::Whole | Purpose::Begin)
}

/// Whether the request puts a part of an object.
pub(super) fn is_part(parts: &Parts) -> bool {
    purpose(&parts.method, parts.uri.query().unwrap_or_default()) == Purpose::Part
}

/// Adds the MD5, a part's as given: of a whole object it is the object's name, so that the store takes
/// nothing else under it.
pub(super) fn prove(parts: &mut Parts, md5_of_part: Option<[u8; 16]>) {
    let (name, md5) = match purpose(&parts.method, parts.uri.query().unwrap_or_default()) {
        Purpose::Whole => (CONTENT_MD5, named(parts.uri.path())),
        Purpose::Part => (CONTENT_MD5, md5_of_part.map(|md5| base64(&md5))),
        Purpose::Commit => (HeaderName::from_static("x-ms-blob-content-md5"), named(parts.uri.path())),
        Purpose::Begin | Purpose::Other => return,
    };
    if let Some(value) = md5.and_then(|md5| HeaderValue::try_from(md5).ok()) {
        parts.headers.insert(name, value);
    }
}

/// The MD5 in an object's path, `…/files/md5/ab/cdef…`, as HTTP writes it.
fn named(path: &str) -> Option<String> {
    let mut names = path.rsplit('/');
    let (rest, first) = (names.next()?, names.next()?);
    let rest = rest.strip_suffix(".dir").unwrap_or(rest);
    encoded(&format!("{first}{rest}"))
}

/// The bytes of 32 hexadecimal digits, in base 64.
pub(super) fn encoded(digits: &str) -> Option<String> {
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(base64(&number.to_be_bytes()))
}

/// The MD5 that an entity tag is, as HTTP writes it.
pub(super) fn tagged(answer: &Response<Bytes>) -> Option<String> {
    let tag = answer.headers().get(header::ETAG)?.to_str().ok()?;
    encoded(tag.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_method_and_query() {
        let put = |query| purpose(&Method::PUT, query);
        assert_eq!(put(""), Purpose::Whole);
        assert_eq!(put("partNumber=1&uploadId=x"), Purpose::Part);
        assert_eq!(put("comp=block&blockid=x"), Purpose::Part);
        assert_eq!(put("comp=blocklist"), Purpose::Commit);
        assert_eq!(purpose(&Method::POST, "uploads"), Purpose::Begin);
        assert_eq!(purpose(&Method::POST, "uploadId=x"), Purpose::Other);
        assert_eq!(purpose(&Method::POST, "uploadType=media&name=x"), Purpose::Other);
        assert_eq!(purpose(&Method::HEAD, ""), Purpose::Other);
    }

    #[test]
    fn an_objects_name_is_its_md5() {
        let md5 = Some("sZRqyST0ks0kfF21aNIRhA==".to_owned());
        assert_eq!(named("/bucket/a/files/md5/b1/946ac924f492cd247c5db568d21184"), md5);
        assert_eq!(named("/files/md5/b1/946ac924f492cd247c5db568d21184.dir"), md5);
        assert_eq!(named("/bucket"), None);
        assert_eq!(named("/files/md5/b1/xx"), None);
    }
}

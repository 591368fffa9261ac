//! The answer to `WebDAV`'s PROPFIND: which files a folder has, and how long they are.

use percent_encoding::percent_decode_str;
use quick_xml::events::Event;
use quick_xml::reader::Reader;
use std::collections::HashMap;
use trainspot_base::error::{Context as _, Result};

/// The body of a PROPFIND request that asks for the lengths of files only.
pub(super) const PROPFIND_BODY: &str = r#"<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:getcontentlength/></D:prop></D:propfind>"#;

/// The length of each file, by its name. Folders have none.
pub(super) fn lengths(body: &[u8]) -> Result<HashMap<String, u64>> {
    let mut reader = Reader::from_reader(body);
    let (mut lengths, mut name, mut field) = (HashMap::new(), None, Vec::new());
    let mut text = String::new();
    loop {
        match reader.read_event().context("the listing cannot be understood")? {
            Event::Start(tag) => {
                field = tag.local_name().into_inner().as_bytes().to_vec();
                text.clear();
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::End(_) => {
                match field.as_slice() {
                    b"href" => {
                        let last = text.trim().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                        name = Some(percent_decode_str(last).decode_utf8_lossy().into_owned());
                    }
                    b"getcontentlength" => {
                        if let (Some(name), Ok(length)) = (name.take(), text.trim().parse()) {
                            lengths.insert(name, length);
                        }
                    }
                    _ => {}
                }
                field.clear();
            }
            Event::Eof => return Ok(lengths),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_whatever_the_prefix() {
        let body = br#"<?xml version='1.0'?><ns0:multistatus xmlns:ns0="DAV:"><ns0:response><ns0:href>/a/b1/</ns0:href>
            <ns0:propstat><ns0:prop><ns0:getcontentlength /></ns0:prop></ns0:propstat></ns0:response>
            <ns0:response><ns0:href>/a/b1/46%61c</ns0:href><ns0:propstat><ns0:prop>
            <ns0:getcontentlength>12</ns0:getcontentlength></ns0:prop></ns0:propstat></ns0:response></ns0:multistatus>"#;
        assert_eq!(lengths(body).unwrap(), HashMap::from([("46ac".to_owned(), 12)]));
        assert!(lengths(b"<a><b></a>").is_err());
    }
}

//! Bodies as streams of bytes, which can be slowed and cut.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use std::time::Duration;

/// Any error: here it always ends the connection.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
/// An answer's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, Error>;
/// A body on its way.
pub(crate) type Stream = BoxStream<'static, Result<Bytes, Error>>;

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(Error::from).boxed_unsync()
}

pub(crate) fn streamed(stream: Stream) -> Body {
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}

pub(crate) fn stream<B>(body: B) -> Stream
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    body.into_data_stream().map_err(Into::into).boxed()
}

/// The same bytes, with a pause before each chunk and an error after `cut` bytes.
pub(crate) fn disturbed(stream: Stream, cut: Option<u64>, pause: Duration) -> Stream {
    let state = (stream, cut.unwrap_or(u64::MAX));
    stream::unfold(Some(state), move |state| async move {
        let (mut stream, left) = state?;
        if left == 0 {
            return Some((Err("the connection was cut, as the test asked".into()), None));
        }
        let mut chunk = match stream.next().await? {
            Ok(chunk) => chunk,
            Err(error) => return Some((Err(error), None)),
        };
        tokio::time::sleep(pause).await;
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - chunk.len() as u64;
        Some((Ok(chunk), Some((stream, left))))
    })
    .boxed()
}

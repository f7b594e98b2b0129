//! A sink: an S3 endpoint on this machine that swallows bodies, so that a measurement shows our own cost.
//!
//! It holds one empty, unversioned bucket: every list is empty, every write succeeds, nothing is remembered.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

/// The buffer of a connection: a whole image at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Starts a sink on a thread of its own, where it stays until the process ends. Returns its address.
pub(crate) fn start() -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = format!("http://{}", listener.local_addr()?);
    std::thread::Builder::new().name("sink".to_owned()).spawn(move || runtime.block_on(serve(listener)))?;
    Ok(address)
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(
            http1::Builder::new().max_buf_size(BUFFER_BYTES).serve_connection(TokioIo::new(stream), service_fn(answer)),
        );
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    while let Some(Ok(_)) = body.frame().await {}
    let query = head.uri.query().unwrap_or_default();
    let (status, text) = if head.method != Method::GET {
        (200, "")
    } else if query.contains("versioning") {
        (200, "<VersioningConfiguration/>")
    } else if query.contains("object-lock") {
        (404, "<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>")
    } else {
        (200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    if head.method == Method::HEAD {
        // Hyper leaves it out of an answer that has no body, and an object has a length.
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

//! One request after another: authenticate, meet the faults, look up, answer, sign.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answers::{Answer, ListStyle, answer};
use crate::auth::{self, AuthOutcome};
use crate::body::{Chunks, media_bytes, media_signature};
use crate::control;
use crate::draft::{Content, Draft, build, gzip, reply_draft, sign_head, sign_if};
use crate::faults::{Effect, Endpoint, FaultBook};
use crate::knobs::{Gzip, Signatures};
use crate::media::Media;
use crate::record::{InFlight, Record, Seen};
use crate::request::Ask;
use crate::stream::{Accidents, Connection, Line, SimBody, Source};
use crate::world::{Integration, World};

/// Bodies up to this size are made at once; larger ones are streamed.
const HELD_BYTES: u64 = 256 * 1024;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    base_url: String,
    world: Mutex<World>,
    faults: Mutex<FaultBook>,
    pub(crate) record: Arc<Record>,
    bucket: Mutex<Option<(f64, Instant)>>,
    deletions: Mutex<HashMap<String, Vec<Instant>>>,
    /// Signatures of large bodies, which are made twice only the first time.
    signatures: Mutex<HashMap<u64, String>>,
    calls: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub(crate) struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a fault closes the connection")
    }
}

impl std::error::Error for Hangup {}

/// What was decided for a request: an answer or a hang-up, and the twists it meets.
struct Decided {
    draft: Option<Draft>,
    auth: AuthOutcome,
    twists: Vec<Effect>,
    faulted: bool,
}

impl Decided {
    fn plainly(draft: Draft, auth: AuthOutcome) -> Self {
        Self { draft: Some(draft), auth, twists: Vec::new(), faulted: false }
    }
}

impl Shared {
    pub(crate) fn new(base_url: String, mut world: World) -> Self {
        let mut faults = FaultBook::default();
        for fault in std::mem::take(&mut world.faults) {
            faults.add(fault);
        }
        Self {
            base_url,
            world: Mutex::new(world),
            faults: Mutex::new(faults),
            record: Arc::default(),
            bucket: Mutex::default(),
            deletions: Mutex::default(),
            signatures: Mutex::default(),
            calls: AtomicU64::new(0),
        }
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, FaultBook> {
        lock(&self.faults)
    }

    fn decide(&self, ask: &Ask) -> Decided {
        let mut world = self.world();
        if let Some(refusal) = self.over_the_rate(&world) {
            return Decided::plainly(refusal, AuthOutcome::Unchecked);
        }
        if ask.endpoint == Endpoint::Other {
            return Decided::plainly(Draft::error(404, None), AuthOutcome::Unchecked);
        }
        let (key, signature) = (ask.key.as_deref(), ask.signature.as_deref());
        let uppercase = world.knobs.accept_uppercase_hex;
        let (owner, secret) = match auth::check(&world.integrations, uppercase, key, signature, &ask.id) {
            Ok(caller) => (caller.integration.clone(), caller.secret.to_owned()),
            Err(why) => return Decided::plainly(Draft::error(401, why.code()), why),
        };
        let twists = self.faults().meet(ask.endpoint, &ask.id);
        let faulted = !twists.is_empty();
        let draft = match twists.as_slice() {
            [reply] if reply.is_reply() => reply_draft(reply),
            _ => Some(self.true_draft(&mut world, ask, owner, secret, &twists)),
        };
        Decided { draft, auth: AuthOutcome::Good, twists, faulted }
    }

    fn true_draft(&self, world: &mut World, ask: &Ask, owner: Integration, secret: String, twists: &[Effect]) -> Draft {
        if ask.endpoint == Endpoint::Delete
            && let Some(refusal) = self.delete_refusal(world, &owner)
        {
            return refusal;
        }
        let style = self.list_style(world, twists);
        let mut signatures = world.knobs.signatures;
        let mut draft = match answer(world, &owner, ask.endpoint, &ask.id, &style) {
            Answer::Json(value) => {
                let mut bytes = value.to_string().into_bytes();
                if twists.contains(&Effect::InvalidJson) {
                    bytes.truncate(bytes.len() / 2);
                }
                let mut draft = Draft::new(200, "application/json", bytes);
                draft.gzip = twists.contains(&Effect::Gzip)
                    || match world.knobs.gzip {
                        Gzip::Never => false,
                        Gzip::WhenAsked => ask.accepts_gzip,
                        Gzip::Always => true,
                    };
                draft
            }
            Answer::Media(media) => {
                signatures = media.signatures.unwrap_or(signatures);
                let mut draft = Draft::new(200, &media.content_type(), Vec::new());
                draft.content = Content::Media(media);
                draft
            }
            Answer::Refused { status, body } => {
                if !world.knobs.sign_errors {
                    signatures = Signatures::None;
                }
                Draft::new(status, "application/json", body.to_string().into_bytes())
            }
        };
        draft.signatures = signatures;
        for twist in twists {
            match twist {
                Effect::Signatures { mode } => draft.signatures = *mode,
                Effect::ContentType { value } => draft.content_type.clone_from(value),
                _ => {}
            }
        }
        draft.signer = Some((owner, secret));
        draft
    }

    fn list_style(&self, world: &World, twists: &[Effect]) -> ListStyle {
        let url_base = world.knobs.url_base.as_ref().unwrap_or(&self.base_url);
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut style =
            ListStyle { url_base: url_base.clone(), size_off_by: 0, shuffle: world.knobs.shuffle.then_some(call) };
        for twist in twists {
            match twist {
                Effect::WrongSize { by } => style.size_off_by = *by,
                Effect::UrlBase { base } => style.url_base.clone_from(base),
                _ => {}
            }
        }
        style
    }

    fn over_the_rate(&self, world: &World) -> Option<Draft> {
        let limit = world.knobs.rate_limit.as_ref()?;
        let now = Instant::now();
        let mut bucket = lock(&self.bucket);
        let burst = f64::from(limit.burst.max(1));
        let (tokens, since) = bucket.unwrap_or((burst, now));
        let gained = now.duration_since(since).as_secs_f64() * limit.per_second;
        let tokens = (tokens + gained).min(burst);
        let allowed = tokens >= 1.0;
        *bucket = Some((if allowed { tokens - 1.0 } else { tokens }, now));
        (!allowed).then(|| Draft::error(429, None).retry_after(limit.retry_after.as_ref()))
    }

    fn delete_refusal(&self, world: &World, owner: &Integration) -> Option<Draft> {
        if !owner.delete_enabled {
            return Some(Draft::error(403, None));
        }
        let (per_hour, per_day) = world.knobs.delete_limits;
        let mut deletions = lock(&self.deletions);
        let past = deletions.entry(owner.name.clone()).or_default();
        let within = |hours: u64| {
            let age = Duration::from_secs(3600 * hours);
            let recent = past.iter().filter(|t| t.elapsed() < age).count();
            u32::try_from(recent).unwrap_or(u32::MAX)
        };
        if within(1) >= per_hour || within(24) >= per_day {
            return Some(Draft::error(429, None));
        }
        past.push(Instant::now());
        None
    }

    async fn signature_of(&self, media: &Media, secret: &str) -> String {
        let mut hasher = DefaultHasher::new();
        (&media.id, &media.mimetype, media.size_bytes, secret).hash(&mut hasher);
        let key = hasher.finish();
        if let Some(known) = lock(&self.signatures).get(&key) {
            return known.clone();
        }
        let (item, text) = (media.clone(), secret.to_owned());
        let made = tokio::task::spawn_blocking(move || media_signature(&item, &text)).await;
        let made = made.unwrap_or_default();
        lock(&self.signatures).insert(key, made.clone());
        made
    }

    async fn respond(
        &self,
        draft: Draft,
        twists: &[Effect],
        in_flight: InFlight,
        line: &Arc<Line>,
    ) -> Response<SimBody> {
        let mut headers = draft.extra;
        headers.push(("content-type", draft.content_type));
        let mut state_length = !twists.contains(&Effect::Chunked);
        let signing = draft.signer.filter(|_| draft.signatures != Signatures::None);
        let secret = signing.as_ref().map_or("", |(_, secret)| secret);
        let wants_true = signing.is_some() && draft.signatures != Signatures::Corrupt;
        let (len, source, signature) = match draft.content {
            Content::Media(media) => {
                state_length &= media.content_length;
                if media.size_bytes > HELD_BYTES {
                    let signature = if wants_true { self.signature_of(&media, secret).await } else { String::new() };
                    (media.size_bytes, Source::Made(Chunks::new(&media)), signature)
                } else {
                    let bytes = media_bytes(&media);
                    let signature = sign_if(wants_true, secret, &bytes);
                    (media.size_bytes, Source::Held(Bytes::from(bytes)), signature)
                }
            }
            Content::Bytes(mut bytes) => {
                let signature = sign_if(wants_true, secret, &bytes);
                if draft.gzip {
                    headers.push(("content-encoding", "gzip".to_owned()));
                    bytes = gzip(&bytes);
                }
                (bytes.len() as u64, Source::Held(Bytes::from(bytes)), signature)
            }
        };
        if let Some((owner, secret)) = &signing {
            let signature = if wants_true { signature } else { auth::sign(secret, b"not this body") };
            sign_head(&mut headers, owner, &signature, draft.signatures);
        }
        let accidents = Accidents::new(twists, len);
        if state_length {
            // A body without bytes can break off too: it then claims one.
            let stated = len.max(u64::from(accidents.break_off()));
            headers.push(("content-length", stated.to_string()));
        }
        let body = SimBody::new(source, line).with(accidents, in_flight);
        build(draft.status, headers, body)
    }
}

async fn handle(shared: Arc<Shared>, line: Arc<Line>, request: Request<Incoming>) -> Result<Response<SimBody>, Hangup> {
    let path = request.uri().path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    if path.starts_with("/__") {
        return Ok(control::handle(&shared, &line, request).await);
    }
    let in_flight = shared.record.enter();
    let ask = Ask::new(request.method(), path, request.headers());
    let (latency_ms, keep) = {
        let world = shared.world();
        (world.knobs.latency_ms, world.knobs.keep_requests)
    };
    pause(latency_ms).await;
    let decided = shared.decide(&ask);
    let seen = Seen {
        method: ask.method.to_string(),
        path: ask.path,
        endpoint: ask.endpoint,
        id: ask.id,
        status: decided.draft.as_ref().map_or(0, |d| d.status),
        auth: decided.auth,
        faulted: decided.faulted,
    };
    shared.record.note(seen, keep);
    for twist in &decided.twists {
        if let Effect::DelayHead { for_ms } = twist {
            pause(*for_ms).await;
        }
    }
    let draft = decided.draft.ok_or(Hangup)?;
    Ok(shared.respond(draft, &decided.twists, in_flight, &line).await)
}

async fn pause(milliseconds: u64) {
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

/// Accepts connections until told to stop; then all connections are cut.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.record.connected();
                    connections.spawn(talk(stream, Arc::clone(&shared)));
                }
                // Out of file descriptors, most likely; connections that end free some.
                Err(_) => pause(10).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn talk(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (connection, line) = Connection::new(stream);
    let service = service_fn(|request| handle(Arc::clone(&shared), Arc::clone(&line), request));
    // An error here is the client's going away or a fault doing its work: neither is news.
    let _ = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(connection), service)
        .await;
    Ok(())
}

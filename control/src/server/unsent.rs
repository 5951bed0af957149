//! Answers until their clients have read them.
//!
//! What must stay true: what is in memory for clients that do not read is bounded, whatever they ask and on however many
//! streams: [`FREE`] for each connection, and beyond it as bodies that come in are ([`Intake`]), for each user and altogether, and
//! who holds most gives way. An answer that is in memory as a whole has its place before it is made, where its size can be told
//! by what it is made of, so that a refusal costs little; a longer one has a place for each piece when that is made. A place is
//! given back when the last of its bytes has left for the client, or the client has gone.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use wherry_api::status::ApiError;

use super::body::{self, Body, BoxError};
use super::intake::{Held, Intake, Reserved};
use super::listen::{Connection, owner};
use crate::flow::WAIT;

/// Bytes of a connection's answers that are not counted as its user's.
pub(super) const FREE: usize = 64 << 10;
/// Bytes of all that are. A larger answer than a user may have counts as so much.
const TOTAL: usize = 256 << 20;
/// Bytes that are expected of the first piece of an answer of which nothing is known, as of a watch.
const FIRST: usize = 4 << 10;
/// What each counts for beside its bytes: headers, warnings among them, and what serves it.
const AROUND: usize = 4 << 10;
/// What a piece counts for beside its bytes: what carries it.
const AROUND_PIECE: usize = 512;
/// Of one user's.
const OF_USER: usize = 64 << 20;

/// Answers that wait to be sent. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Unsent(Intake);

impl Unsent {
    pub(super) fn new() -> Self {
        Self(Intake::bounded(TOTAL, OF_USER))
    }

    /// Room for the answer to a user's request. Whoever asks through a proxy is counted apart from its others; service accounts
    /// of a namespace are one. Without a connection it is this process, which reads what it asks for.
    pub(super) fn room(&self, connection: Option<Arc<Connection>>, user: &str) -> Room {
        let of = |connection| Arc::new(Asked { unsent: self.clone(), connection, user: owner(user).into() });
        Room(connection.map(of), Arc::default())
    }

    /// Bytes that are counted.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.0.held()
    }
}

/// Who asked.
#[derive(Debug)]
struct Asked {
    unsent: Unsent,
    connection: Arc<Connection>,
    user: Box<str>,
}

/// Room for an answer. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Option<Arc<Asked>>, Arc<Mutex<Option<Place>>>);

impl Room {
    /// Takes a place for an answer of about this many bytes, before it is made. Error: 429, and nothing was done.
    pub(crate) fn foresee(&self, bytes: usize) -> Result<(), ApiError> {
        self.reserve(bytes.saturating_add(AROUND))
    }

    fn reserve(&self, bytes: usize) -> Result<(), ApiError> {
        let Some(asked) = &self.0 else { return Ok(()) };
        let mut place = self.1.lock();
        if place.as_ref().is_none_or(|place| place.bytes < bytes) {
            // Not both at once.
            *place = None;
            *place = Some(asked.take(bytes).ok_or_else(body::crowded)?);
        }
        Ok(())
    }

    /// The answer in its place. Error: 429.
    pub(super) fn fill(&self, answer: Response<Body>) -> Result<Response<Body>, ApiError> {
        if let Some(size) = whole(&answer).filter(|_| !answer.body().is_end_stream()) {
            self.reserve(size)?;
        }
        Ok(self.put(answer))
    }

    /// The same of an answer that the client must be told, since something was done, or refused.
    pub(super) fn put(&self, answer: Response<Body>) -> Response<Body> {
        let Some(asked) = &self.0 else { return answer };
        if answer.body().is_end_stream() {
            return answer;
        }
        let place = self.1.lock().take();
        let place = match whole(&answer) {
            Some(size) => Kept::Whole(asked.keep(place, size)),
            None => {
                // What is made of much comes in large pieces, unless there is little of it.
                let (left, expected) = (length(&answer), if place.is_some() { 2 * FREE } else { FIRST });
                Kept::Pieces { _made_of: place, expected: expected.min(piece(left)), left, waits: None }
            }
        };
        answer.map(|body| Sent { body, place, asked: Arc::clone(asked) }.boxed_unsync())
    }
}

/// What an answer counts for that is in memory. One that says its size and is not, is only counted as if it were.
fn whole(answer: &Response<Body>) -> Option<usize> {
    let size = answer.body().size_hint().exact();
    size.map(|size| usize::try_from(size).unwrap_or(usize::MAX).saturating_add(AROUND))
}

/// What a piece of so many bytes counts for; none is nothing.
fn piece(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes.saturating_add(AROUND_PIECE) }
}

/// Bytes that an answer in pieces says that it has.
fn length(answer: &Response<Body>) -> usize {
    let length = answer.headers().get(CONTENT_LENGTH);
    length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(usize::MAX)
}

impl Asked {
    /// A place, if there is one now.
    fn take(&self, bytes: usize) -> Option<Place> {
        self.place(bytes, |bytes| self.unsent.0.hold(&self.user, bytes, self.connection.closing()).map(Kind::Held))
    }

    /// A place for what may never come, if there is one now: nobody gives way for it before it has.
    fn reserve(&self, bytes: usize) -> Option<Place> {
        self.place(bytes, |bytes| reserved(self.unsent.0.reserve(&self.user, bytes), bytes))
    }

    /// The place of what is there, if it is as large; what was not expected to be so large is there all the same.
    fn keep(&self, reserved: Option<Place>, bytes: usize) -> Option<Arc<Place>> {
        let mut place = match reserved.filter(|place| place.bytes >= bytes) {
            Some(Place { kind: Kind::Reserved(room), .. }) => {
                let held = room.keep(bytes.min(OF_USER), self.connection.closing());
                Place { bytes, kind: Kind::Held(held) }
            }
            Some(place) => place,
            None => self.count(bytes)?,
        };
        place.shrink(bytes);
        Some(Arc::new(place))
    }

    /// A place for what is there already.
    fn count(&self, bytes: usize) -> Option<Place> {
        self.place(bytes, |bytes| self.unsent.0.count(&self.user, bytes, self.connection.closing()).map(Kind::Held))
    }

    fn place(&self, bytes: usize, held: impl FnOnce(usize) -> Option<Kind>) -> Option<Place> {
        let free = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| Arc::clone(self.connection.room()).try_acquire_many_owned(bytes).ok());
        let kind = match free {
            Some(free) => Kind::Free(free),
            None => held(bytes.min(OF_USER))?,
        };
        Some(Place { bytes, kind })
    }

    /// Waits for a place until others have gone that the connection or its user's other answers have.
    fn wait(self: &Arc<Self>, bytes: usize) -> Waits {
        let asked = Arc::clone(self);
        let free = async move |room: Arc<Semaphore>| match u32::try_from(bytes).ok().filter(|_| bytes <= FREE) {
            Some(bytes) => room.acquire_many_owned(bytes).await.ok(),
            None => pending().await,
        };
        let waits = async move {
            let own = async {
                let bytes = bytes.min(OF_USER);
                reserved(asked.unsent.0.wait(&asked.user, bytes).await, bytes)
            };
            let taken = async {
                tokio::select! {
                    biased;
                    free = free(Arc::clone(asked.connection.room())) => Some(Kind::Free(free?)),
                    // Who holds most is refused what all share, and may still read what its connection has.
                    Some(own) = own => Some(own),
                }
            };
            Some(Place { bytes, kind: timeout(WAIT, taken).await.ok()?? })
        };
        waits.boxed()
    }
}

/// Room of a user's own that all have room for.
fn reserved(own: Option<Reserved>, bytes: usize) -> Option<Kind> {
    own.filter(|own| own.fits(bytes)).map(Kind::Reserved)
}

type Waits = BoxFuture<'static, Option<Place>>;

/// Where bytes are until they are sent.
#[derive(Debug)]
struct Place {
    bytes: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// In the room of the connection.
    Free(OwnedSemaphorePermit),
    Held(Held),
    /// For a piece that has not been made.
    Reserved(Reserved),
}

impl Place {
    fn shrink(&mut self, bytes: usize) {
        match &mut self.kind {
            Kind::Free(free) => drop(free.split(free.num_permits().saturating_sub(bytes))),
            Kind::Held(held) => held.shrink(bytes),
            Kind::Reserved(_) => {}
        }
        self.bytes = self.bytes.min(bytes);
    }
}

/// An answer's body, whose bytes have a place until each of them is sent.
struct Sent {
    body: Body,
    place: Kept,
    asked: Arc<Asked>,
}

enum Kept {
    Whole(Option<Arc<Place>>),
    Pieces {
        /// For what the pieces are made of.
        _made_of: Option<Place>,
        /// Bytes of the next piece at most, as far as the last one tells. It is not made before there is a place for so many.
        expected: usize,
        /// Bytes of all that follow, as far as it is known.
        left: usize,
        waits: Option<Waits>,
    },
}

/// Bytes and their place, which goes with the last of them.
struct Piece {
    bytes: Bytes,
    _place: Option<Arc<Place>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A user has so many answers unread that the next piece of one found no place in time.
#[derive(Debug, thiserror::Error)]
#[error("too many answers are not read")]
struct NoPlace;

impl Sent {
    /// A place for the next piece. Nobody has it while there is no next piece yet.
    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Place>, NoPlace>> {
        let Kept::Pieces { expected, waits, .. } = &mut self.place else { return Poll::Ready(Ok(None)) };
        if waits.is_none() {
            match self.asked.reserve(*expected) {
                Some(place) => return Poll::Ready(Ok(Some(place))),
                None => *waits = Some(self.asked.wait(*expected)),
            }
        }
        let place = match waits {
            Some(wait) => ready!(wait.as_mut().poll(cx)),
            None => None,
        };
        *waits = None;
        Poll::Ready(place.ok_or(NoPlace).map(Some))
    }

    /// Puts a piece where it is until it is sent.
    fn put(&mut self, bytes: Bytes, reserved: Option<Place>) -> Bytes {
        let place = match &mut self.place {
            Kept::Whole(place) => place.clone(),
            Kept::Pieces { expected, left, .. } => {
                let size = piece(bytes.len());
                *left = left.saturating_sub(bytes.len());
                *expected = size.max(FREE.min(2 * size)).min(piece(*left));
                self.asked.keep(reserved, size)
            }
        };
        Bytes::from_owner(Piece { bytes, _place: place })
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let reserved = match ready!(self.poll_place(cx)) {
            Ok(reserved) => reserved,
            Err(failure) => return Poll::Ready(Some(Err(failure.into()))),
        };
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let sent = match frame.into_data() {
            Ok(bytes) => Frame::data(self.put(bytes, reserved)),
            Err(trailers) => trailers,
        };
        Poll::Ready(Some(Ok(sent)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.place {
            Kept::Whole(_) => self.body.size_hint(),
            Kept::Pieces { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, poll, stream};

    use super::*;
    use crate::server::listen::a_connection;

    /// What a piece counts for.
    const PIECE: usize = FREE;

    /// An answer in pieces, in room for so many of them beside what every connection has.
    fn pieces(unsent: &Unsent) -> Body {
        let (connection, _) = a_connection();
        let body = body::stream(stream::iter(0..3).map(|_| Ok(vec![0; PIECE - AROUND_PIECE].into())));
        let room = unsent.room(Some(connection), "eve");
        room.foresee(1).unwrap();
        room.put(Response::new(body)).into_body()
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_is_made_when_there_is_a_place_for_it_and_given_up_if_that_takes_too_long() {
        let unsent = Unsent(Intake::bounded(100 * PIECE, 4 * PIECE));
        let (mut first, mut second) = (pieces(&unsent), pieces(&unsent));
        let taken = [first.frame().await, first.frame().await, first.frame().await];
        assert_eq!(unsent.held(), 3 * PIECE, "the least of what was expected");
        assert!(poll!(second.frame()).is_pending());
        drop(taken);
        let next = second.frame().await.unwrap().unwrap();
        assert_eq!(next.data_ref().unwrap().len(), PIECE - AROUND_PIECE);
        let _held = unsent.0.hold("eve", 3 * PIECE, tokio_util::sync::CancellationToken::new()).unwrap();
        assert!(second.frame().await.unwrap().is_err(), "nobody waits longer than for a seat");
        assert_eq!(unsent.held(), 4 * PIECE);
    }

    #[tokio::test]
    async fn events_wait_for_what_their_own_connection_reads_and_not_for_what_another_does_not() {
        let unsent = Unsent(Intake::bounded(100 * PIECE, 4 * PIECE));
        let _unread = unsent.0.hold("eve", 4 * PIECE, tokio_util::sync::CancellationToken::new()).unwrap();
        let (connection, _) = a_connection();
        let watch = |_| {
            let event = stream::iter([Ok(vec![0; FIRST - AROUND_PIECE].into())]).chain(stream::pending());
            let answer = Response::new(body::stream(event));
            unsent.room(Some(Arc::clone(&connection)), "eve").put(answer).into_body()
        };
        let mut watches: Vec<Body> = (0..400).map(watch).collect();
        let (begin, rest) = watches.split_at_mut(FREE / FIRST);
        let mut buffered = Vec::new();
        for watch in begin {
            buffered.push(watch.frame().await.unwrap().unwrap());
        }
        let mut rest: stream::FuturesOrdered<_> = rest.iter_mut().map(|watch| watch.frame()).collect();
        assert!(poll!(rest.next()).is_pending());
        // The client reads.
        drop(buffered);
        while let Some(event) = rest.next().await {
            event.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_small_list_needs_no_more_than_its_connection_has() {
        let unsent = Unsent(Intake::bounded(100 * PIECE, 4 * PIECE));
        let _unread = unsent.0.hold("eve", 4 * PIECE, tokio_util::sync::CancellationToken::new()).unwrap();
        let (connection, _) = a_connection();
        let list = |size: usize| {
            let room = unsent.room(Some(Arc::clone(&connection)), "eve");
            room.foresee(1).unwrap();
            let body = body::stream(stream::iter([Ok(vec![0; size].into())]));
            room.put(Response::builder().header(CONTENT_LENGTH, size).body(body).unwrap()).into_body()
        };
        let (mut small, mut larger) = (list(FREE - 3 * AROUND), list(2 * FREE));
        assert!(poll!(larger.frame()).is_pending());
        let all = poll!(small.frame());
        assert!(matches!(&all, Poll::Ready(Some(Ok(_)))), "{all:?}");
        assert!(matches!(poll!(small.frame()), Poll::Ready(None)), "nothing follows, and nothing is waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_most_when_all_room_is_taken_waits_for_its_own_connection() {
        let unsent = Unsent(Intake::bounded(4 * PIECE, 4 * PIECE));
        let _unread = unsent.0.hold("eve", 3 * PIECE, tokio_util::sync::CancellationToken::new()).unwrap();
        let _other = unsent.0.hold("adam", PIECE, tokio_util::sync::CancellationToken::new()).unwrap();
        let (connection, _) = a_connection();
        let read = Arc::clone(connection.room()).try_acquire_many_owned(u32::try_from(FREE).unwrap()).unwrap();
        let event = Response::new(body::stream(stream::iter([Ok(Bytes::from_static(b"event"))])));
        let mut watch = unsent.room(Some(connection), "eve").put(event).into_body();
        assert!(poll!(watch.frame()).is_pending());
        drop(read);
        assert!(watch.frame().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_place_that_was_foreseen_is_enough_for_its_answer() {
        let unsent = Unsent(Intake::bounded(100 * PIECE, 4 * PIECE));
        let (connection, _) = a_connection();
        let _busy = Arc::clone(connection.room()).try_acquire_many_owned(60 << 10).unwrap();
        let foreseen = unsent.room(Some(connection), "eve");
        foreseen.foresee(1_000).unwrap();
        // Of another connection: all the room that their user has.
        let hold = || unsent.0.hold("eve", 1 << 10, tokio_util::sync::CancellationToken::new());
        let _unread: Vec<Held> = std::iter::from_fn(hold).collect();
        foreseen.fill(Response::new(body::full(vec![0; 1_000]))).unwrap();
    }

    #[tokio::test]
    async fn nobody_gives_way_to_who_waits_for_events_before_there_is_one() {
        let unsent = Unsent(Intake::bounded(4 * PIECE, 4 * PIECE));
        let closing = tokio_util::sync::CancellationToken::new();
        let _unread = unsent.0.hold("greedy", 4 * PIECE, closing.clone()).unwrap();
        let (connection, _) = a_connection();
        let _busy = Arc::clone(connection.room()).try_acquire_many_owned(u32::try_from(FREE).unwrap()).unwrap();
        let (events, sent) = futures::channel::mpsc::unbounded();
        let watch = Response::new(body::stream(sent));
        let mut watch = unsent.room(Some(connection), "modest").put(watch).into_body();
        assert!(poll!(watch.frame()).is_pending());
        assert!(!closing.is_cancelled());
        events.unbounded_send(Ok(Bytes::from_static(b"event"))).unwrap();
        let event = watch.frame().await.unwrap().unwrap();
        assert!(closing.is_cancelled(), "the event has a place");
        assert_eq!(unsent.held(), 5 + AROUND_PIECE);
        drop(event);
        assert_eq!(unsent.held(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_events_has_no_place_for_them_and_a_connection_has_some_for_nothing() {
        let unsent = Unsent(Intake::bounded(100 * PIECE, 4 * PIECE));
        let (connection, _) = a_connection();
        let (events, sent) = futures::channel::mpsc::unbounded();
        let watch = Response::new(body::stream(sent));
        let mut watch = unsent.room(Some(Arc::clone(&connection)), "eve").put(watch).into_body();
        assert!(poll!(watch.frame()).is_pending());
        let taken = || FREE - connection.room().available_permits();
        assert_eq!((unsent.held(), taken()), (0, 0));
        events.unbounded_send(Ok(Bytes::from_static(b"event"))).unwrap();
        let event = watch.frame().await.unwrap().unwrap();
        assert!(poll!(watch.frame()).is_pending());
        let small = Response::new(body::full(vec![0; 1_000]));
        let answer = unsent.room(Some(Arc::clone(&connection)), "eve").fill(small).unwrap();
        assert_eq!(taken(), 1_000 + AROUND + 5 + AROUND_PIECE, "the event's and the answer's");
        assert_eq!(unsent.held(), 0);
        drop((answer, watch, event));
        assert_eq!(taken(), 0);
    }
}

//! TCP connections that have not said yet which node they come from.
//!
//! ```text
//! accept --> arriving: bounded in number and in time --greets--> served: bounded by permits
//! ```
//!
//! A connection takes a descriptor, and whoever has only just connected has shown nothing for it. So
//! all of them share a bounded number of places and have a bounded time. Where no place is left, the one
//! that has waited longest gives its place away once it has had the time in which an honest peer greets;
//! until then the system holds back whoever comes next. Silent connections, however many, then neither
//! use up the descriptors nor keep others out. An honest peer that loses its place dials again.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::limits::{ARRIVAL_TIME_MAX, ARRIVAL_TIME_MIN, ARRIVALS_MAX};

/// Accepts connections, as many as may arrive at once.
pub(super) struct ArrivalListener {
    listener: TcpListener,
    /// Those that have not greeted, the oldest in front, and some that have or are gone.
    arrivals: VecDeque<Weak<Arrival>>,
}

/// What is known of a connection from its first moment on.
pub(super) struct Arrival {
    since: Instant,
    has_greeted: AtomicBool,
    /// Asks it to give its place to another.
    give_way: Notify,
}

impl Arrival {
    /// The connection stays: it has said which node it comes from.
    pub(super) fn greeted(&self) {
        self.has_greeted.store(true, Ordering::Relaxed);
    }

    fn has_greeted(&self) -> bool {
        self.has_greeted.load(Ordering::Relaxed)
    }

    async fn run_out_of_time(self: Arc<Self>) {
        tokio::select! {
            () = sleep_until(self.since + ARRIVAL_TIME_MAX) => {}
            () = self.give_way.notified() => {}
        }
    }
}

impl ArrivalListener {
    pub(super) fn new(listener: TcpListener) -> ArrivalListener {
        ArrivalListener { listener, arrivals: VecDeque::new() }
    }

    /// Waits until there is a place, for which the oldest arrival may have to go.
    async fn make_room(&mut self) {
        loop {
            self.arrivals
                .retain(|arrival| arrival.upgrade().is_some_and(|arrival| !arrival.has_greeted()));
            if self.arrivals.len() < ARRIVALS_MAX {
                return;
            }
            let Some(oldest) = self.arrivals.front().and_then(Weak::upgrade) else { continue };
            let patience_ends = oldest.since + ARRIVAL_TIME_MIN;
            if Instant::now() < patience_ends {
                sleep_until(patience_ends).await;
                // It may have greeted meanwhile.
                continue;
            }
            oldest.give_way.notify_one();
            self.arrivals.pop_front();
        }
    }
}

impl Listener for ArrivalListener {
    type Io = Arriving;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Arriving, SocketAddr) {
        self.make_room().await;
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Small messages are answered, and must not wait until the one before has been. Where it is not
        // possible they come late.
        let _ = stream.set_nodelay(true);
        let arrival = Arc::new(Arrival {
            since: Instant::now(),
            has_greeted: AtomicBool::new(false),
            give_way: Notify::new(),
        });
        self.arrivals.push_back(Arc::downgrade(&arrival));
        (Arriving::new(stream, arrival), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its time is over, unless it has greeted by then.
pub(super) struct Arriving {
    stream: TcpStream,
    arrival: Arc<Arrival>,
    /// Ends where the time is over; none once it has, or the connection stays.
    time: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_out_of_time: bool,
}

impl Arriving {
    fn new(stream: TcpStream, arrival: Arc<Arrival>) -> Arriving {
        let time = Box::pin(arrival.clone().run_out_of_time());
        Arriving { stream, arrival, time: Some(time), is_out_of_time: false }
    }

    /// Pending while there is time. Reading and writing ask for it alike: a peer that reads no answers
    /// takes up a place as well as one that asks for nothing.
    fn poll_out_of_time(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.arrival.has_greeted() {
            self.time = None;
        }
        if let Some(time) = &mut self.time {
            self.is_out_of_time = time.as_mut().poll(context).is_ready();
        }
        if !self.is_out_of_time {
            return Poll::Pending;
        }
        self.time = None;
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "it did not greet in time"))
    }
}

impl AsyncRead for Arriving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_out_of_time(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Arriving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_out_of_time(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Lets whoever handles a request on a connection say that it has greeted.
#[derive(Clone)]
pub(super) struct Greeter(pub(super) Arc<Arrival>);

impl Connected<IncomingStream<'_, ArrivalListener>> for Greeter {
    fn connect_info(stream: IncomingStream<'_, ArrivalListener>) -> Greeter {
        Greeter(stream.io().arrival.clone())
    }
}

//! Tests of the API over real sockets.

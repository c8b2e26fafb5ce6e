//! What a store carries while its guest runs, and the look at the clock that stops a guest.

use super::http::{GuestHttp, HttpGate};
use super::limits::MemoryLimiter;
use super::stdio::GuestStreams;
use super::stop::{StopReason, StopSwitch};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::{StoreContextMut, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

/// Guest code that has run this long is reported as started. The end of a shorter attempt says all.
pub(super) const STARTED_AFTER: Duration = Duration::from_millis(5);

/// What a store carries while its guest runs.
pub struct Guest {
    pub(super) wasi: WasiP1Ctx,
    pub(super) http: GuestHttp,
    pub(super) limiter: MemoryLimiter,
    pub(super) stop: Arc<StopSwitch>,
    pub(super) streams: Arc<GuestStreams>,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    /// When guest code started, µs since 1970.
    pub(super) started_us: i64,
    /// Whether the guest is instantiated and its function was called. What fails from then on is a
    /// failure of the guest.
    pub(super) called: bool,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let GuestHttp { context, gate } = &mut self.http;
        let gate: &mut HttpGate = gate;
        WasiHttpCtxView {
            hooks: gate,
            table: self.wasi.ctx().table,
            ctx: context,
        }
    }
}

/// Called inside running guest code, once per epoch. Only here can `loop {}` be stopped.
pub(super) fn on_epoch(mut store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    let guest = store.data_mut();
    if guest.stop.is_cancelled() {
        return Err(StopReason::Cancelled.into());
    }
    let now = Instant::now();
    if now >= guest.deadline {
        return Err(StopReason::Timeout.into());
    }

    if now.duration_since(guest.began) >= STARTED_AFTER {
        guest.streams.tell_started(guest.started_us);
    }
    guest.streams.flush_live(now);
    Ok(UpdateDeadline::Continue(1))
}

//! What a store carries while its guest runs, and the look at the clock that stops a guest.

use super::http::{GuestHttp, HttpGate};
use super::limits::{self, MemoryLimiter};
use super::stdio::GuestStreams;
use super::stop::{StopReason, StopSwitch};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
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
    /// Whether the guest has folders in which others put things, and not only its own.
    pub(super) sees_foreign_files: bool,
    pub(super) limiter: MemoryLimiter,
    /// Files that the guest may have open at a time.
    pub(super) open_files_max: usize,
    pub(super) stop: Arc<StopSwitch>,
    pub(super) streams: Arc<GuestStreams>,
    pub(super) began: Instant,
    /// When live events are told next, at the earliest.
    pub(super) next_tell: Instant,
    /// When guest code started, µs since 1970.
    pub(super) started_us: i64,
    /// Whether the guest is instantiated and its function was called. What fails from then on is a
    /// failure of the guest.
    pub(super) called: bool,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.enter();
        self.wasi.ctx()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.enter();
        let GuestHttp { context, gate } = &mut self.http;
        let gate: &mut HttpGate = gate;
        WasiHttpCtxView {
            hooks: gate,
            table: self.wasi.ctx().table,
            ctx: context,
        }
    }
}

impl Guest {
    /// What a command's host function works with. Every one begins here.
    pub(super) fn enter_wasi(&mut self) -> &mut WasiP1Ctx {
        self.enter();
        &mut self.wasi
    }

    /// Every host function begins here, whoever wrote it. Code without loops meets no epoch, so a
    /// guest could make one long call after the other for hours. The functions of WASI get the
    /// guest's state by a projection that cannot fail, so the end of a stopped guest is unwound
    /// through them: wasmtime passes that on to [`catch_stop`], with every destructor run.
    fn enter(&mut self) {
        if let Err(reason) = self.look(Instant::now()) {
            std::panic::resume_unwind(Box::new(reason));
        }
    }

    /// Looks at the clock and at the stop switch, and tells what has waited long enough.
    pub(super) fn look(&mut self, now: Instant) -> Result<(), StopReason> {
        if let Some(reason) = self.stop.reason(now) {
            return Err(reason);
        }
        if now < self.next_tell {
            return Ok(());
        }
        self.next_tell = now + Duration::from_millis(limits::EPOCH_MS);
        if now.duration_since(self.began) >= STARTED_AFTER {
            self.streams.tell_started(self.started_us);
        }
        self.streams.flush_live(now);
        Ok(())
    }
}

/// Called inside running guest code, once per epoch. Only here can `loop {}` be stopped.
pub(super) fn on_epoch(mut store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    store.data_mut().look(Instant::now())?;
    Ok(UpdateDeadline::Continue(1))
}

/// Makes an error of the end of a guest that was stopped at the entrance of a host function. Every
/// other panic goes on.
pub(super) async fn catch_stop<T>(
    call: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let unwound = match AssertUnwindSafe(call).catch_unwind().await {
        Ok(result) => return result,
        Err(unwound) => unwound,
    };
    match unwound.downcast::<StopReason>() {
        Ok(reason) => Err((*reason).into()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

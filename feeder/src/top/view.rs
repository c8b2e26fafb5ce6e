//! Draws `top`: the master in one line, the rate, runners, jobs with their progress, and the last
//! events.

use super::dashboard::Dashboard;
use crate::output::text::{span, thousands};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};
use taskmaster_console::terminal::one_line;
use taskmaster_protocol::message::Status;
use taskmaster_protocol::shape::JobView;

/// Characters of a job's bar.
const BAR_CHARS: usize = 20;

/// Lines around the rows of a bordered table: its heading and two borders.
const TABLE_FRAME: u16 = 3;

/// Rows of the table of runners that are shown.
const RUNNER_ROWS_MAX: u16 = 8;

/// Rows of the table of jobs that are shown.
const JOB_ROWS_MAX: u16 = 10;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, dashboard: &Dashboard) {
    let areas = [
        Constraint::Length(2),
        Constraint::Length(4),
        Constraint::Length(table_lines(dashboard.runners.len(), RUNNER_ROWS_MAX)),
        Constraint::Length(table_lines(dashboard.jobs.len(), JOB_ROWS_MAX)),
        Constraint::Min(3),
    ];
    let [head, rate, runners, jobs, events] = Layout::vertical(areas).areas(frame.area());
    draw_head(frame, head, dashboard);
    draw_rate(frame, rate, dashboard);
    draw_runners(frame, runners, dashboard);
    draw_jobs(frame, jobs, dashboard);
    draw_events(frame, events, dashboard);
}

fn table_lines(rows: usize, rows_max: u16) -> u16 {
    let rows = u16::try_from(rows).unwrap_or(u16::MAX);
    rows.clamp(1, rows_max) + TABLE_FRAME
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, dashboard: &Dashboard) {
    let status = dashboard.status.as_ref();
    let title = status.map_or("taskmaster".to_owned(), title);
    let refused = status.and_then(|status| status.why_no_adds());
    let note = match (dashboard.problem.as_str(), refused) {
        ("", None) => Line::from("q quits").dim(),
        ("", Some(trouble)) => Line::from(trouble.to_string()).red(),
        (problem, _) => Line::from(problem).red(),
    };
    let lines = vec![Line::from(title).bold(), note];
    frame.render_widget(Paragraph::new(lines), area);
}

/// The master in one line.
fn title(status: &Status) -> String {
    let count = |state: &str| thousands(status.tasks.get(state).copied().unwrap_or(0));
    let states = ["ready", "assigned", "blocked", "delayed", "done", "failed"]
        .map(|state| format!("{state} {}", count(state)));
    format!(
        "taskmaster  {}  up {}  {} runners, {} slots  ·  {}",
        status.durability,
        span(status.uptime_ms.saturating_mul(1_000)),
        status.runners,
        status.slots,
        states.join("  ")
    )
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, dashboard: &Dashboard) {
    let title = format!(" {} tasks/s ", thousands(dashboard.rate.round() as u64));
    let shown = usize::from(area.width.saturating_sub(2));
    let skip = dashboard.rates.len().saturating_sub(shown);
    let rates: Vec<u64> = dashboard.rates.iter().skip(skip).copied().collect();
    frame.render_widget(
        Sparkline::default()
            .data(&rates)
            .style(Style::new().fg(Color::Cyan))
            .block(Block::bordered().title(title)),
        area,
    );
}

fn draw_runners(frame: &mut Frame<'_>, area: Rect, dashboard: &Dashboard) {
    let rows = dashboard.runners.iter().map(|runner| {
        let slots = format!("{}/{}", runner.used, runner.slots);
        Row::new([
            one_line(&runner.runner).into_owned(),
            runner.state.clone(),
            slots,
            thousands(runner.attempts),
            thousands(runner.finished),
        ])
    });
    let widths = [
        Constraint::Min(16),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(12),
    ];
    let head = Row::new(["runner", "state", "slots", "attempts", "finished"]).bold();
    frame.render_widget(
        Table::new(rows, widths)
            .header(head)
            .block(Block::bordered().title(" runners ")),
        area,
    );
}

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, dashboard: &Dashboard) {
    let rows = dashboard.jobs.iter().map(|job| {
        let state = if job.paused {
            "paused"
        } else if job.open {
            "open"
        } else {
            "done"
        };
        Row::new([
            job.job.to_string(),
            state.to_owned(),
            bar(job),
            thousands(job.assigned),
            thousands(job.failed),
        ])
    });
    let widths = [
        Constraint::Min(16),
        Constraint::Length(7),
        Constraint::Length(50),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let head = Row::new(["job", "state", "ended", "assigned", "failed"]).bold();
    frame.render_widget(
        Table::new(rows, widths)
            .header(head)
            .block(Block::bordered().title(" jobs ")),
        area,
    );
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, dashboard: &Dashboard) {
    let shown = usize::from(area.height.saturating_sub(2));
    let skip = dashboard.events.len().saturating_sub(shown);
    let lines: Vec<Line<'_>> = dashboard
        .events
        .iter()
        .skip(skip)
        .map(|event| Line::from(event.as_str()))
        .collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" events ")),
        area,
    );
}

/// How many of a job's tasks have ended, as a bar and as numbers.
fn bar(job: &JobView) -> String {
    let ended = job.done + job.failed + job.cancelled + job.skipped;
    let full = (u128::from(ended) * BAR_CHARS as u128)
        .checked_div(u128::from(job.total))
        .unwrap_or(0);
    let full = BAR_CHARS.min(full as usize);
    format!(
        "{}{} {}/{}",
        "█".repeat(full),
        "░".repeat(BAR_CHARS - full),
        thousands(ended),
        thousands(job.total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn it_draws_in_every_size_of_terminal() {
        let job: JobView = serde_json::from_str(concat!(
            r#"{"job":"night","run":1,"open":true,"total":10,"blocked":0,"delayed":0,"ready":4,"#,
            r#""assigned":1,"done":5,"failed":0,"cancelled":0,"skipped":0}"#,
        ))
        .unwrap();
        let dashboard = Dashboard {
            jobs: vec![job],
            rates: (0..300).collect(),
            rate: 1234.0,
            events: ["hello".to_owned()].into(),
            ..Dashboard::default()
        };
        for (width, height) in [(120, 40), (80, 24), (20, 5), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &dashboard)).unwrap();
            let shown: String = terminal
                .backend()
                .buffer()
                .content()
                .iter()
                .map(|cell| cell.symbol())
                .collect();
            if width == 120 {
                let half = "██████████░░░░░░░░░░ 5/10";
                for words in [half, "1,234 tasks/s", "hello"] {
                    assert!(shown.contains(words), "{words}: {shown}");
                }
            }
        }
    }
}

//! Draws `top`: a line at a glance, the rate, runners, jobs with their progress, the last events.

use super::Picture;
use crate::output::text::{span, thousands};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};
use taskmaster_protocol::shape::JobView;

/// Cells of a job's bar.
const BAR: usize = 20;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let runners = u16::try_from(picture.runners.len())
        .unwrap_or(u16::MAX)
        .clamp(1, 8)
        + 3;
    let jobs = u16::try_from(picture.jobs.len())
        .unwrap_or(u16::MAX)
        .clamp(1, 10)
        + 3;
    let areas = [
        Constraint::Length(2),
        Constraint::Length(4),
        Constraint::Length(runners),
        Constraint::Length(jobs),
        Constraint::Min(3),
    ];
    let [head, rate, runners, jobs, events] = Layout::vertical(areas).areas(frame.area());
    draw_head(frame, head, picture);
    draw_rate(frame, rate, picture);
    draw_runners(frame, runners, picture);
    draw_jobs(frame, jobs, picture);
    draw_events(frame, events, picture);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let mut lines = vec![Line::from("taskmaster").bold()];
    if let Some(status) = &picture.status {
        let count = |state: &str| thousands(status.tasks.get(state).copied().unwrap_or(0));
        let states = ["ready", "assigned", "blocked", "delayed", "done", "failed"]
            .map(|state| format!("{state} {}", count(state)));
        let up = span(status.uptime_ms.saturating_mul(1_000));
        let (runners, slots) = (status.runners, status.slots);
        let text = format!(
            "taskmaster  {}  up {up}  {runners} runners, {slots} slots  ·  {}",
            status.durability,
            states.join("  ")
        );
        lines = vec![Line::from(text).bold()];
    }
    let refusing = picture
        .status
        .as_ref()
        .and_then(|status| status.refusing.as_deref());
    let note = match (picture.note.as_str(), refusing) {
        ("", None) => Line::from("q quits").dim(),
        ("", Some(why)) => Line::from(format!("adds are refused: {why}")).red(),
        (note, _) => Line::from(note).red(),
    };
    lines.push(note);
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let title = format!(" {} tasks/s ", thousands(picture.rate.round() as u64));
    let shown = usize::from(area.width.saturating_sub(2));
    let skip = picture.rates.len().saturating_sub(shown);
    let rates: Vec<u64> = picture.rates.iter().skip(skip).copied().collect();
    frame.render_widget(
        Sparkline::default()
            .data(&rates)
            .style(Style::new().fg(Color::Cyan))
            .block(Block::bordered().title(title)),
        area,
    );
}

fn draw_runners(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let rows = picture.runners.iter().map(|runner| {
        let slots = format!("{}/{}", runner.used, runner.slots);
        Row::new([
            runner.runner.clone(),
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

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let rows = picture.jobs.iter().map(|job| {
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

fn draw_events(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let room = usize::from(area.height.saturating_sub(2));
    let skip = picture.events.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = picture
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

/// How much of a job has ended.
fn bar(job: &JobView) -> String {
    let ended = job.done + job.failed + job.cancelled + job.skipped;
    let full = if job.total == 0 {
        0
    } else {
        (u128::from(ended) * BAR as u128 / u128::from(job.total)) as usize
    };
    let full = full.min(BAR);
    format!(
        "{}{} {}/{}",
        "█".repeat(full),
        "░".repeat(BAR - full),
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
        let job: JobView = serde_json::from_str(
            r#"{"job":"night","run":1,"open":true,"total":10,"blocked":0,"delayed":0,"ready":4,"assigned":1,"done":5,"failed":0,"cancelled":0,"skipped":0}"#,
        )
        .unwrap();
        let picture = Picture {
            jobs: vec![job],
            rates: (0..300).collect(),
            rate: 1234.0,
            events: ["hello".to_owned()].into(),
            ..Picture::default()
        };
        for (width, height) in [(120, 40), (80, 24), (20, 5), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &picture)).unwrap();
            let shown: String = terminal
                .backend()
                .buffer()
                .content()
                .iter()
                .map(|cell| cell.symbol())
                .collect();
            if width == 120 {
                assert!(
                    shown.contains("██████████░░░░░░░░░░ 5/10")
                        && shown.contains("1,234 tasks/s")
                        && shown.contains("hello"),
                    "{shown}"
                );
            }
        }
    }
}

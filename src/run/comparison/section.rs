//! The runs of one task and how each compares with the published results.

use super::format::number;
use super::published::{IMAGES, Mean, Row, SIZE, Table};
use super::run::Run;
use crate::data::classes::Classes;

/// The runs of one task, with the published results for it.
#[derive(Debug)]
pub struct Section {
    /// `None` for a task without published results.
    pub table: Option<Table>,
    /// The classes of its runs.
    pub classes: Classes,
    /// The runs, in the order given.
    pub runs: Vec<Run>,
}

impl Section {
    /// Returns the section's title.
    pub fn title(&self) -> &str {
        self.table.as_ref().map_or("No published task", |table| &table.title)
    }

    /// Returns the means to show: those of the table, or the mean over all classes.
    pub fn means(&self) -> Vec<Mean> {
        match &self.table {
            Some(table) => table.means.clone(),
            None => {
                vec![Mean { name: "mIoU".into(), classes: (0..self.classes.len()).collect() }]
            }
        }
    }

    /// Returns the published rows.
    pub fn rows(&self) -> Vec<&Row> {
        self.table.iter().flat_map(|table| &table.rows).collect()
    }

    /// Returns the table and the run's row in it.
    pub fn row(&self, run: &Run) -> Option<(&Table, &Row)> {
        let table = self.table.as_ref()?;
        Some((table, table.rows.get(run.row?)?))
    }

    /// Returns the IoU of a train id, run minus published, in percentage points.
    pub fn difference(&self, run: &Run, class: usize) -> Option<f64> {
        let (table, row) = self.row(run)?;
        Some(run.iou(class).mean - table.iou(row, class))
    }

    /// Compares the run's means with its published row, as in `mIoU 54.9, 21.1 below the published
    /// QuadMix(ViT) (76.1)`. Without a row it gives the reason.
    pub fn verdict(&self, run: &Run) -> String {
        if !run.is_evaluated() {
            return "not evaluated yet".into();
        }
        let Some((table, row)) = self.row(run) else {
            let means = self.means();
            let message: Vec<String> = (means.iter())
                .map(|mean| format!("{} {}", mean.name, run.mean(mean).percent()))
                .collect();
            return format!("{}; {}", message.join(", "), run.no_row);
        };
        let message: Vec<String> = (table.means.iter().zip(&row.means))
            .map(|(mean, &published)| {
                let ours = run.mean(mean);
                let gap = ours.mean - published;
                let side = if gap < 0.0 { "below" } else { "above" };
                format!(
                    "{} {}, {} {side} the published {} ({})",
                    mean.name,
                    ours.percent(),
                    number(gap.abs()),
                    row.name,
                    number(published)
                )
            })
            .collect();
        message.join("; ")
    }

    /// Describes how the run's validation data differs from the published benchmark's.
    pub fn data(&self, run: &Run) -> String {
        if !run.is_evaluated() && run.foreign.is_empty() {
            return "the data of the published benchmark".into();
        }
        if run.foreign.is_empty() {
            return format!(
                "validated on Cityscapes' {IMAGES} images of {}x{}, as the published results were",
                SIZE[0], SIZE[1]
            );
        }
        format!("NOT the data of the published benchmark: {}", run.foreign.join("; "))
    }

    /// Returns the preset of the run's published row.
    pub fn preset(&self, run: &Run) -> Option<&String> {
        self.row(run)?.1.preset.as_ref()
    }

    /// Says how many settings differ from the preset; `None` if the row has no preset.
    pub fn settings(&self, run: &Run) -> Option<String> {
        let preset = self.preset(run)?;
        Some(match run.settings.len() {
            0 => format!("settings as in preset {preset}"),
            1 => format!("1 setting differs from preset {preset}"),
            count => format!("{count} settings differ from preset {preset}"),
        })
    }
}

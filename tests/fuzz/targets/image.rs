//! Images, as training and prediction read them.

use udass_raw::data::decode::{load_rgb, load_rows, size};
use udass_raw::data::resize::{
    Size, Window, cv_bilinear, cv_bilinear_rows, pil_bilinear, pil_bilinear_rows,
};

/// Prediction reads whole images and training the rows of a crop, which must be the same.
pub fn image(bytes: &[u8]) {
    let path = super::file(bytes);
    let claimed = size(&path).ok();
    let whole = load_rgb(&path).ok();
    if let Some(image) = &whole {
        assert_eq!(image.rgb.len(), 3 * image.size.pixels());
        assert!(claimed.is_none_or(|size| size == image.size));
        let fitted = image.size.fitted([48, 27]);
        let scaled = cv_bilinear(image.rows(), fitted, Window::whole(fitted));
        assert_eq!(scaled.len(), 3 * fitted.pixels());
    }
    // The part of a scaled image that a crop takes. Damage below it may go unnoticed.
    let part = |of: Size| {
        let (x, y) = (of.width / 3, of.height / 3);
        Window { x, y, width: (of.width - x).min(16), height: (of.height - y).div_ceil(2).min(16) }
    };
    let same = |got: &[u8], want: &dyn Fn() -> Vec<u8>| {
        assert!(whole.is_none() || got == want(), "rows differ from those of the whole image");
    };
    let fit = |size: Size| size.fitted([48, 27]);
    let rows = load_rows(&path, |size| Ok(cv_bilinear_rows(size, fit(size), part(fit(size)))));
    assert!(rows.is_ok() || whole.is_none(), "a whole image has all of its rows");
    if let Ok(rows) = rows {
        let (to, window) = (fit(rows.size), part(fit(rows.size)));
        let crop = cv_bilinear(rows.rows(), to, window);
        same(&crop, &|| {
            whole.as_ref().map_or_else(Vec::new, |w| cv_bilinear(w.rows(), to, window))
        });
    }
    let to = Size::new(32, 18);
    let rows = load_rows(&path, |size| Ok(pil_bilinear_rows(size, to, part(to))));
    if let Ok(rows) = rows {
        let crop = pil_bilinear(rows.rows(), to, part(to));
        same(&crop, &|| {
            whole.as_ref().map_or_else(Vec::new, |w| pil_bilinear(w.rows(), to, part(to)))
        });
    }
}

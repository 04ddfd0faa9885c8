/* Segments one image, and writes the index of each pixel's class as an 8-bit grayscale PNG.
 *
 *     make -C examples/c
 *     examples/c/segment MODEL IMAGE LABELS.png
 *
 * MODEL is a file that `udass-raw export` wrote, or a checkpoint. */
#include <stdio.h>
#include <stdlib.h>

#include "udass_raw.h"

static void tell(void *data, const char *message) {
    (void)data;
    fprintf(stderr, "%s\n", message);
}

static int failed(const char *what) {
    fprintf(stderr, "error: %s: %s\n", what, udass_last_error());
    return EXIT_FAILURE;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL IMAGE LABELS.png\n", argv[0]);
        return 2;
    }
    int result = EXIT_FAILURE;
    udass_options options = {.struct_size = sizeof options};
    options.log = tell;
    udass_model *model = NULL;
    udass_pixels pixels = {0};
    uint8_t *labels = NULL;

    if (udass_model_open(argv[1], &options, &model) != UDASS_STATUS_OK) return failed("model");
    if (udass_image_read(argv[2], &pixels) != UDASS_STATUS_OK) {
        result = failed("image");
        goto end;
    }
    udass_image image = {.struct_size = sizeof image};
    image.format = UDASS_FORMAT_RGB;
    image.width = pixels.width;
    image.height = pixels.height;
    image.data[0] = pixels.rgb;

    const size_t count = pixels.width * pixels.height;
    labels = malloc(count);
    if (!labels) goto end;
    udass_output output = {.struct_size = sizeof output};
    output.kind = UDASS_OUTPUT_LABELS;
    output.data = labels;
    output.length = count;
    if (udass_segment(model, &image, 1, &output, NULL, NULL) != UDASS_STATUS_OK) {
        result = failed("segment");
        goto end;
    }
    if (udass_png_write_gray(argv[3], labels, pixels.width, pixels.height) != UDASS_STATUS_OK) {
        result = failed("labels");
        goto end;
    }
    for (size_t class = 0; class < udass_model_class_count(model); ++class) {
        size_t pixels_of_class = 0;
        for (size_t i = 0; i < count; ++i) pixels_of_class += labels[i] == class;
        if (pixels_of_class > 0) {
            const double share = 100.0 * (double)pixels_of_class / (double)count;
            printf("%5.1f %%  %s\n", share, udass_model_class_name(model, class));
        }
    }
    result = EXIT_SUCCESS;
end:
    free(labels);
    udass_pixels_free(&pixels);
    udass_model_free(model);
    return result;
}

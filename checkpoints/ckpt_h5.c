/* The layout of a shard file, by HDF5, in memory: a driver below HDF5 keeps the few pages that it writes. HDF5 never
 * touches the disk, where it reports success over missing data when that is full, and keeps a file for ever whose last
 * bytes cannot be written. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/ckpt_shard.h"

/* ---- the driver -----------------------------------------------------------------------------------------------------
 */

struct image_file {
    H5FD_t base; /* must be the first */
    struct h5_image *image;
    haddr_t eoa;
};

static H5FD_t *image_open(const char *name, unsigned flags, hid_t fapl, haddr_t max)
{
    (void)name, (void)flags, (void)max;
    struct image_file *f = mem_alloc(sizeof *f);
    f->image = *(struct h5_image *const *)H5Pget_driver_info(fapl);
    return &f->base;
}

static herr_t image_close(H5FD_t *file)
{
    struct image_file *f = (struct image_file *)file;
    f->image->bytes = (int64_t)f->eoa;
    free(f);
    return 0;
}

static haddr_t image_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct image_file *)file)->eoa;
}

static herr_t image_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t eoa)
{
    (void)type;
    ((struct image_file *)file)->eoa = eoa;
    return 0;
}

static haddr_t image_eof(const H5FD_t *file, H5FD_mem_t type) { return image_eoa(file, type); }

static struct h5_page *find_page(struct h5_image *m, int64_t at)
{
    for (int i = 0; i < m->n; i++)
        if (m->pages[i].at == at) return &m->pages[i];
    return NULL;
}

static struct h5_page *make_page(struct h5_image *m, int64_t at)
{
    struct h5_page *p = find_page(m, at);
    if (p) return p;
    m->pages = mem_grow(m->pages, (size_t)(m->n + 1) * sizeof *m->pages);
    p = &m->pages[m->n++];
    *p = (struct h5_page){.at = at};
    return p;
}

/* The part of [at, at + n) within the page that holds `at`. */
static size_t within_page(int64_t at, size_t n)
{
    size_t left = H5_PAGE - (size_t)(at % H5_PAGE);
    return n < left ? n : left;
}

static herr_t image_read(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t addr, size_t n, void *out)
{
    (void)type, (void)dxpl;
    char *to = out;
    for (int64_t at = (int64_t)addr; n;) {
        size_t part = within_page(at, n);
        const struct h5_page *p = find_page(((struct image_file *)file)->image, at - at % H5_PAGE);
        if (p)
            memcpy(to, p->byte + at % H5_PAGE, part);
        else
            memset(to, 0, part);
        at += (int64_t)part;
        to += part;
        n -= part;
    }
    return 0;
}

static herr_t image_write(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t addr, size_t n, const void *data)
{
    (void)type, (void)dxpl;
    const char *from = data;
    for (int64_t at = (int64_t)addr; n;) {
        size_t part = within_page(at, n);
        memcpy(make_page(((struct image_file *)file)->image, at - at % H5_PAGE)->byte + at % H5_PAGE, from, part);
        at += (int64_t)part;
        from += part;
        n -= part;
    }
    return 0;
}

static const H5FD_class_t driver = {
    .name = "trimpot_image",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_WEAK,
    .fapl_size = sizeof(struct h5_image *),
    .open = image_open,
    .close = image_close,
    .get_eoa = image_eoa,
    .set_eoa = image_set_eoa,
    .get_eof = image_eof,
    .read = image_read,
    .write = image_write,
    .fl_map = H5FD_FLMAP_SINGLE,
};

void h5_image_release(struct h5_image *m)
{
    free(m->pages);
    *m = (struct h5_image){0};
}

/* ---- the layout -----------------------------------------------------------------------------------------------------
 */

/* HDF5 has no bf16 or f16: they lie as U16, and the attribute "dtype" says what they are. Memory and file types are
 * the same, so that nothing is converted. */
static hid_t h5_type(dtype dt)
{
    switch (dt) {
    case DT_F32:
        return H5T_IEEE_F32LE;
    case DT_F64:
        return H5T_IEEE_F64LE;
    case DT_BF16:
    case DT_F16:
        return H5T_STD_U16LE;
    case DT_I32:
        return H5T_STD_I32LE;
    case DT_I64:
        return H5T_STD_I64LE;
    default:
        return H5T_STD_U8LE;
    }
}

static herr_t innermost(unsigned n, const H5E_error2_t *e, void *text)
{
    if (n == 0) snprintf(text, 200, "%s: %s", e->func_name, e->desc);
    return 0;
}

static status h5_fail(const char *path, const char *what)
{
    char why[200] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, why);
    H5Eclear2(H5E_DEFAULT);
    FAIL(ST_IO, "%s: HDF5 cannot %s: %s", path, what, why);
}

struct layout {
    const char *path; /* of the shard, for messages */
    hid_t driver, fapl, fcpl, dcpl, file, data[CKPT_MAX_CLASSES];
    const struct ckpt_state *s;
    struct ckpt_shard *out;
};

/* Current format, data sets aligned to pages, no times: equal state gives equal bytes. */
static status open_file(struct layout *w, struct h5_image *image)
{
    w->driver = H5FDregister(&driver);
    w->fapl = H5Pcreate(H5P_FILE_ACCESS);
    w->fcpl = H5Pcreate(H5P_FILE_CREATE);
    w->dcpl = H5Pcreate(H5P_DATASET_CREATE);
    if (w->driver < 0 || w->fapl < 0 || w->fcpl < 0 || w->dcpl < 0 || H5Pset_driver(w->fapl, w->driver, &image) < 0 ||
        H5Pset_libver_bounds(w->fapl, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 || H5Pset_alignment(w->fapl, 65536, H5_PAGE) < 0 ||
        H5Pset_obj_track_times(w->fcpl, false) < 0 || H5Pset_obj_track_times(w->dcpl, false) < 0 ||
        H5Pset_layout(w->dcpl, H5D_CONTIGUOUS) < 0 || H5Pset_alloc_time(w->dcpl, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(w->dcpl, H5D_FILL_TIME_NEVER) < 0)
        return h5_fail(w->path, "set properties");
    w->file = H5Fcreate(w->path, H5F_ACC_TRUNC, w->fcpl, w->fapl);
    return w->file < 0 ? h5_fail(w->path, "create the file") : ST_OK;
}

static status put_attribute(const struct layout *w, hid_t on, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = space < 0 ? -1 : H5Acreate2(on, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool bad = a < 0 || H5Awrite(a, type, value) < 0;
    if (a >= 0) bad |= H5Aclose(a) < 0;
    if (space >= 0) bad |= H5Sclose(space) < 0;
    return bad ? h5_fail(w->path, "write an attribute") : ST_OK;
}

static status put_dtype(const struct layout *w, hid_t on, dtype dt)
{
    hid_t text = H5Tcopy(H5T_C_S1);
    const char *name = dtype_name(dt);
    status st = text < 0 || H5Tset_size(text, strlen(name) + 1) < 0 ? h5_fail(w->path, "make a string type") : ST_OK;
    if (!st) st = put_attribute(w, on, "dtype", text, name);
    if (text >= 0 && H5Tclose(text) < 0 && !st) st = h5_fail(w->path, "close a string type");
    return st;
}

static status create_data(struct layout *w, int k)
{
    const struct ckpt_class *c = &w->s->classes[k];
    struct ckpt_part *p = &w->out->part[k];
    if (p->lo == p->hi) return ST_OK;
    hsize_t count = (hsize_t)(p->hi - p->lo);
    hid_t space = H5Screate_simple(1, &count, NULL);
    if (space >= 0) w->data[k] = H5Dcreate2(w->file, c->name, h5_type(c->dt), space, H5P_DEFAULT, w->dcpl, H5P_DEFAULT);
    if (space < 0 || w->data[k] < 0 || H5Sclose(space) < 0) return h5_fail(w->path, "create a data set");
    haddr_t offset = H5Dget_offset(w->data[k]);
    if (offset == HADDR_UNDEF) return h5_fail(w->path, "tell where a data set lies");
    p->offset = (int64_t)offset;
    TRY(put_dtype(w, w->data[k], c->dt));
    TRY(put_attribute(w, w->data[k], "per", H5T_STD_I64LE, &c->per));
    return put_attribute(w, w->data[k], "lo", H5T_STD_I64LE, &p->lo);
}

/* Every close is checked too; the first failure is reported. */
static status close_all(struct layout *w, status st)
{
    bool bad = false;
    for (int k = 0; k < w->s->n_classes; k++)
        if (w->data[k] >= 0) bad |= H5Dclose(w->data[k]) < 0;
    if (w->file >= 0) bad |= H5Fclose(w->file) < 0;
    if (w->dcpl >= 0) bad |= H5Pclose(w->dcpl) < 0;
    if (w->fcpl >= 0) bad |= H5Pclose(w->fcpl) < 0;
    if (w->fapl >= 0) bad |= H5Pclose(w->fapl) < 0;
    if (w->driver >= 0) bad |= H5FDunregister(w->driver) < 0;
    return bad && !st ? h5_fail(w->path, "close the file") : st;
}

status ckpt_h5_layout(const char *path, const struct ckpt_state *s, struct ckpt_shard *out, struct h5_image *image)
{
    struct layout w = {.path = path, .driver = -1, .fapl = -1, .fcpl = -1, .dcpl = -1, .file = -1, .s = s, .out = out};
    for (int k = 0; k < s->n_classes; k++) w.data[k] = -1;
    H5E_auto2_t print;
    void *print_data;
    status st;
    H5Eget_auto2(H5E_DEFAULT, &print, &print_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    TRY_DONE(open_file(&w, image));
    for (int k = 0; k < s->n_classes; k++) TRY_DONE(create_data(&w, k));
done:
    st = close_all(&w, st);
    H5Eset_auto2(H5E_DEFAULT, print, print_data);
    H5garbage_collect();
    return st;
}

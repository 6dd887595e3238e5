// Everything that works on rows of activations: embedding, norms, rotation, SwiGLU, gather, scatter.

// x[row] = table[token[row]]; the residual stream is kept in 32-bit floats.
KERNEL embed(const real *__restrict__ table, const u32 *__restrict__ tokens, float *__restrict__ x) {
    u64 row = blockIdx.x;
    const real *from = table + (u64)tokens[row] * HIDDEN;
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x) x[row * HIDDEN + i] = to_float(from[i]);
}

// y[i] = x[row] / rms(x[row]) * weight, where row is rows[i], or i where `rows` is null.
KERNEL rms_norm(const float *__restrict__ x, const u32 *__restrict__ rows, const real *__restrict__ weight, real *__restrict__ y, float eps) {
    __shared__ float shared[32];
    u64 row = rows ? rows[blockIdx.x] : blockIdx.x;
    const float *from = x + row * HIDDEN;
    real *to = y + (u64)blockIdx.x * HIDDEN;
    float sum = 0.f;
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x) sum += from[i] * from[i];
    float scale = rsqrtf(block_sum(sum, shared) / HIDDEN + eps);
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x) store(&to[i], from[i] * scale * to_float(weight[i]));
}

// Rotates queries (into 16-bit floats, which attention reads) and writes keys and values to the
// pages. One block per row; `where` says which span a row is of.
KERNEL rotate_append(const real *__restrict__ qkv, f16 *__restrict__ queries, const float2 *__restrict__ turns, const Span *__restrict__ spans,
                     const u32 *__restrict__ where, const u32 *__restrict__ page_list, const PageDesc *__restrict__ pages, u32 layer) {
    u64 row = blockIdx.x;
    Span span = spans[where[row]];
    u32 position = span.start + (u32)row - span.row;
    PageDesc page = pages[page_list[span.pages + position / PAGE]];
    u32 token = position % PAGE;
    const u32 half_dim = HEAD_DIM / 2;
    const real *from = qkv + row * QKV_WIDTH;
    for (u32 i = threadIdx.x; i < (HEADS + KV_HEADS) * half_dim; i += blockDim.x) {
        u32 head = i / half_dim, k = i % half_dim;
        float2 turn = turns[(u64)position * half_dim + k];
        float a = to_float(from[head * HEAD_DIM + k]), b = to_float(from[head * HEAD_DIM + half_dim + k]);
        f16 *to = head < HEADS ? queries + (row * HEADS + head) * HEAD_DIM
                               : (f16 *)page.data + (stripe(layer, 0, head - HEADS) * PAGE + token) * HEAD_DIM;
        store(&to[k], a * turn.x - b * turn.y);
        store(&to[half_dim + k], b * turn.x + a * turn.y);
    }
    const real *values = from + (HEADS + KV_HEADS) * HEAD_DIM;
    for (u32 i = threadIdx.x; i < KV_HEADS * HEAD_DIM; i += blockDim.x) {
        u32 head = i / HEAD_DIM, k = i % HEAD_DIM;
        f16 *to = (f16 *)page.data + (stripe(layer, 1, head) * PAGE + token) * HEAD_DIM;
        store(&to[k], to_float(values[i]));
    }
}

struct alignas(2 * sizeof(real)) Pair {
    real a, b;
};

// y = silu(gate) * up, for rows that hold gate and up one after the other. Grid (pairs of a row
// over threads, rows).
KERNEL swiglu(const real *__restrict__ gate_up, real *__restrict__ y) {
    u64 row = blockIdx.y;
    u32 i = (blockIdx.x * blockDim.x + threadIdx.x) * 2;
    if (i >= FFN) return;
    Pair gate = *(const Pair *)(gate_up + row * 2 * FFN + i), up = *(const Pair *)(gate_up + row * 2 * FFN + FFN + i), out;
    float a = to_float(gate.a), b = to_float(gate.b);
    store(&out.a, a / (1.f + __expf(-a)) * to_float(up.a));
    store(&out.b, b / (1.f + __expf(-b)) * to_float(up.b));
    *(Pair *)(y + row * FFN + i) = out;
}

// Spans of rows that take the same path are brought together, and back: to[i] = from[rows[i]].
KERNEL gather_rows(const float *__restrict__ from, const u32 *__restrict__ rows, float *__restrict__ to, u32 width) {
    u64 i = blockIdx.x, row = rows[i];
    for (u32 k = threadIdx.x; k < width; k += blockDim.x) to[i * width + k] = from[row * width + k];
}

KERNEL scatter_rows(const float *__restrict__ from, const u32 *__restrict__ rows, float *__restrict__ to, u32 width) {
    u64 i = blockIdx.x, row = rows[i];
    for (u32 k = threadIdx.x; k < width; k += blockDim.x) to[row * width + k] = from[i * width + k];
}

// The state of a turn: the mean embedding of its tokens, and how far it lies from that of the turn
// before, as 1 - cosine; 1 where either has no length. One block.
KERNEL turn_delta(const real *__restrict__ table, const u32 *__restrict__ tokens, u32 count, const float *__restrict__ before,
                  float *__restrict__ state, float *__restrict__ delta) {
    __shared__ float shared[32];
    float xx = 0.f, yy = 0.f, xy = 0.f;
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x) {
        float sum = 0.f;
        for (u32 t = 0; t < count; t++) sum += to_float(table[(u64)tokens[t] * HIDDEN + i]);
        float x = count ? sum / count : 0.f, y = before ? before[i] : 0.f;
        state[i] = x;
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    xx = block_sum(xx, shared);
    yy = block_sum(yy, shared);
    xy = block_sum(xy, shared);
    if (threadIdx.x == 0) *delta = xx > 0.f && yy > 0.f ? 1.f - xy * rsqrtf(xx) * rsqrtf(yy) : 1.f;
}

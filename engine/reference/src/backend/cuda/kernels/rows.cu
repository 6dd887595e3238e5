// Everything that works on rows of activations: embedding, norms, rotation, SwiGLU, gather, scatter.

// x[row] = table[token[row]]; the residual stream is kept in 32-bit floats.
extern "C" __global__ void embed(const __nv_bfloat16 *__restrict__ table, const u32 *__restrict__ tokens, float *__restrict__ x) {
    u64 row = blockIdx.x;
    const __nv_bfloat16 *from = table + (u64)tokens[row] * HIDDEN;
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x) x[row * HIDDEN + i] = __bfloat162float(from[i]);
}

// x += delta (unless it is null), then y = x / rms(x) * weight.
extern "C" __global__ void add_rms_norm(float *__restrict__ x, const __nv_bfloat16 *__restrict__ delta, const __nv_bfloat16 *__restrict__ weight,
                                        __nv_bfloat16 *__restrict__ y, float eps) {
    __shared__ float shared[32];
    u64 row = blockIdx.x;
    float sum = 0.f;
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x) {
        float value = x[row * HIDDEN + i];
        if (delta) {
            value += __bfloat162float(delta[row * HIDDEN + i]);
            x[row * HIDDEN + i] = value;
        }
        sum += value * value;
    }
    float scale = rsqrtf(block_sum(sum, shared) / HIDDEN + eps);
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x)
        y[row * HIDDEN + i] = __float2bfloat16(x[row * HIDDEN + i] * scale * __bfloat162float(weight[i]));
}

// Rotates queries in place (as 16-bit floats, which attention reads) and writes keys and values to
// the pages. One block per row; `where` says which span a row is of.
extern "C" __global__ void rotate_append(const __nv_bfloat16 *__restrict__ qkv, __half *__restrict__ queries, const float2 *__restrict__ turns,
                                         const Span *__restrict__ spans, const u32 *__restrict__ where, const u32 *__restrict__ page_list,
                                         const PageDesc *__restrict__ pages, u32 layer) {
    u64 row = blockIdx.x;
    Span span = spans[where[row]];
    u32 position = span.start + (u32)row - span.row;
    PageDesc page = pages[page_list[span.pages + position / PAGE]];
    u32 token = position % PAGE;
    const u32 half_dim = HEAD_DIM / 2;
    const __nv_bfloat16 *from = qkv + row * QKV_WIDTH;
    for (u32 i = threadIdx.x; i < (HEADS + KV_HEADS) * half_dim; i += blockDim.x) {
        u32 head = i / half_dim, k = i % half_dim;
        float2 turn = turns[(u64)position * half_dim + k];
        float a = __bfloat162float(from[head * HEAD_DIM + k]), b = __bfloat162float(from[head * HEAD_DIM + half_dim + k]);
        __half first = __float2half(a * turn.x - b * turn.y), second = __float2half(b * turn.x + a * turn.y);
        __half *to;
        if (head < HEADS) {
            to = queries + (row * HEADS + head) * HEAD_DIM;
        } else {
            to = (__half *)page.data + (stripe(layer, 0, head - HEADS) * PAGE + token) * HEAD_DIM;
        }
        to[k] = first;
        to[half_dim + k] = second;
    }
    const __nv_bfloat16 *values = from + (HEADS + KV_HEADS) * HEAD_DIM;
    for (u32 i = threadIdx.x; i < KV_HEADS * HEAD_DIM; i += blockDim.x) {
        u32 head = i / HEAD_DIM, k = i % HEAD_DIM;
        __half *to = (__half *)page.data + (stripe(layer, 1, head) * PAGE + token) * HEAD_DIM;
        to[k] = __float2half(__bfloat162float(values[i]));
    }
}

// y = silu(gate) * up, for rows that hold gate and up one after the other.
extern "C" __global__ void swiglu(const __nv_bfloat16 *__restrict__ gate_up, __nv_bfloat16 *__restrict__ y) {
    u64 row = blockIdx.y;
    u32 i = (blockIdx.x * blockDim.x + threadIdx.x) * 2;
    if (i >= FFN) return;
    float2 gate = __bfloat1622float2(*(const __nv_bfloat162 *)(gate_up + row * 2 * FFN + i));
    float2 up = __bfloat1622float2(*(const __nv_bfloat162 *)(gate_up + row * 2 * FFN + FFN + i));
    float a = gate.x / (1.f + __expf(-gate.x)) * up.x, b = gate.y / (1.f + __expf(-gate.y)) * up.y;
    *(__nv_bfloat162 *)(y + row * FFN + i) = __floats2bfloat162_rn(a, b);
}

// Spans of rows that take the same path are brought together, and back: to[i] = from[rows[i]].
extern "C" __global__ void gather_rows(const float *__restrict__ from, const u32 *__restrict__ rows, float *__restrict__ to, u32 width) {
    u64 i = blockIdx.x, row = rows[i];
    for (u32 k = threadIdx.x; k < width; k += blockDim.x) to[i * width + k] = from[row * width + k];
}

extern "C" __global__ void scatter_rows(const float *__restrict__ from, const u32 *__restrict__ rows, float *__restrict__ to, u32 width) {
    u64 i = blockIdx.x, row = rows[i];
    for (u32 k = threadIdx.x; k < width; k += blockDim.x) to[row * width + k] = from[i * width + k];
}

// The state of a turn: the mean embedding of its tokens, and how far it lies from that of the turn
// before, as 1 - cosine. One block.
extern "C" __global__ void turn_delta(const __nv_bfloat16 *__restrict__ table, const u32 *__restrict__ tokens, u32 count,
                                      const float *__restrict__ before, float *__restrict__ state, float *__restrict__ delta) {
    __shared__ float shared[32];
    float xx = 0.f, yy = 0.f, xy = 0.f;
    for (u32 i = threadIdx.x; i < HIDDEN; i += blockDim.x) {
        float sum = 0.f;
        for (u32 t = 0; t < count; t++) sum += __bfloat162float(table[(u64)tokens[t] * HIDDEN + i]);
        float x = sum / count, y = before[i];
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

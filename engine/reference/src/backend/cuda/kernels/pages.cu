// Stores a page again in another format. One block per stripe (layer, side, head).
KERNEL convert_page(const u8 *__restrict__ from, const float *__restrict__ from_scales, u32 from_format, u8 *__restrict__ to,
                    float *__restrict__ to_scales, u32 to_format) {
    __shared__ float shared[32];
    const u32 count = PAGE * HEAD_DIM;
    const u64 base = (u64)blockIdx.x * count;
    float old = from_format == FORMAT_F16 ? 1.f : from_scales[blockIdx.x];
    auto load = [&](u32 i) {
        if (from_format == FORMAT_F16) return to_float(((const f16 *)from)[base + i]);
        if (from_format == FORMAT_INT8) return (float)(signed char)from[base + i] * old;
        f16 number = {(u16)widen_fp8(from[base + i])};
        return to_float(number) * old;
    };
    float largest = 0.f;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) largest = fmaxf(largest, fabsf(load(i)));
    largest = block_max(largest, shared);
    float top = to_format == FORMAT_FP8 ? 448.f : 127.f, scale = largest > 0.f ? largest / top : 1.f;
    if (to_format != FORMAT_F16 && threadIdx.x == 0) to_scales[blockIdx.x] = scale;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        float x = load(i);
        if (to_format == FORMAT_F16) {
            store(&((f16 *)to)[base + i], x);
        } else if (to_format == FORMAT_FP8) {
            to[base + i] = to_fp8(x / scale);
        } else {
            to[base + i] = (u8)(signed char)fminf(fmaxf(rintf(x / scale), -127.f), 127.f);
        }
    }
}

// Detect objects in C++ with ONNX Runtime, and nothing else.
//
//     multibox export multibox/shapes shapes.onnx --prepare
//     g++ -std=c++17 -O2 detect.cpp -o detect -I ORT/include -L ORT/lib -lonnxruntime
//     ./detect shapes.onnx scene.ppm
//
// ORT is an unpacked release of ONNX Runtime. With --prepare the file takes one whole image of any size, so reading
// plain pixels is all that is left; here they come from a PPM file ("convert scene.jpg scene.ppm"). Each line says the
// class, the score, and the box as left, top, right and bottom in pixels, as "multibox detect --csv" does.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <regex>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

int main(int count, char **arguments) {
    if (count != 3) {
        std::cerr << "usage: detect MODEL.onnx IMAGE.ppm\n";
        return 2;
    }
    std::ifstream file(arguments[2], std::ios::binary);
    std::string kind;
    int64_t width = 0, height = 0, largest = 0;
    file >> kind >> width >> height >> largest;
    if (kind != "P6" || width < 1 || height < 1 || largest != 255) {
        std::cerr << arguments[2] << ": not a binary PPM file with 8 bits and without comments\n";
        return 1;
    }
    file.get();  // the one white space before the pixels
    std::vector<uint8_t> pixels(3 * width * height);
    if (!file.read(reinterpret_cast<char *>(pixels.data()), pixels.size())) {
        std::cerr << arguments[2] << ": the file ends too early\n";
        return 1;
    }
    try {
        Ort::Env environment(ORT_LOGGING_LEVEL_ERROR);
        Ort::Session session(environment, arguments[1], Ort::SessionOptions());
        Ort::AllocatorWithDefaultOptions allocator;
        const std::string json =
            session.GetModelMetadata().LookupCustomMetadataMapAllocated("class_names", allocator).get();
        const std::regex quoted(R"~("((?:[^"\\]|\\.)*)")~");
        const std::vector<std::string> names(std::sregex_token_iterator(json.begin(), json.end(), quoted, 1), {});

        const int64_t shape[] = {1, height, width, 3};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        auto image = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape, 4);
        const char *inputs[] = {"image"};
        const char *outputs[] = {"boxes", "scores", "labels", "count"};
        auto found = session.Run(Ort::RunOptions(), inputs, &image, 1, outputs, 4);

        const float *boxes = found[0].GetTensorData<float>(), *scores = found[1].GetTensorData<float>();
        const int64_t *labels = found[2].GetTensorData<int64_t>();
        for (int64_t row = 0; row < *found[3].GetTensorData<int64_t>() && scores[row] >= 0.5f; ++row) {
            std::cout << names.at(labels[row]) << ' ' << scores[row];
            for (int side = 0; side < 4; ++side)
                std::cout << ' ' << std::clamp(boxes[4 * row + side], 0.0f, 1.0f) * (side % 2 ? height : width);
            std::cout << '\n';
        }
    } catch (const std::exception &error) {
        std::cerr << arguments[1] << ": " << error.what() << '\n';
        return 1;
    }
}

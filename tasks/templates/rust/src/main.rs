fn main() {
    task::main()
}

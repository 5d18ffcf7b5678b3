module github.com/lockwood-kms/lockwood/tools

go 1.26.0
